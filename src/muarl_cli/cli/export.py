"""`muarl export`: write a run's model for other programs.

Examples:
  muarl export model runs/demo/rl --out models/demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="export", help="Write what a run made for other programs.", no_args_is_help=True)


@app.command()
def model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run, checkpoint or model folder")],
    out: Annotated[Path, typer.Option("--out", help="new folder to write")],
    adapter: Annotated[
        bool, typer.Option("--adapter/--merged", help="the adapter alone, or added to its base's weights")
    ] = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """A Hugging Face folder that vLLM and transformers load: weights, tokenizer, chat template; no trainer state.

    Example: muarl export model runs/demo/rl --out models/demo
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.training.export import Form, export_model

    talk = Talk(json=json)
    with talk.data_only():
        found = export_model(run, out, Form.ADAPTER if adapter else Form.MERGED, talk.warn)
        talk.say(f"{found['kind']}: {found['bytes']:,} bytes of weights in {out}")
        if found["kind"] != "adapter":
            talk.say(f"next: muarl serve {out}, or vllm serve {out}")
    talk.result(found)
    return 0
