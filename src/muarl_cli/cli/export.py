"""`muarl export`: hand what was made to other programs.

Examples:
  muarl export chat runs/cold --out cold.jsonl
  muarl export chat runs/cold --format sharegpt --where accepted=true,scenario=builtin:library --out library.jsonl
  muarl export model runs/demo/rl --out models/demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="export", help="Hand what was made to other programs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Hand what was made to other programs."""


@app.command()
def chat(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="run folder or episode log")],
    out: Annotated[Path, typer.Option("--out", help="file to write, one JSON object a line")],
    form: Annotated[str, typer.Option("--format", help="openai (TRL), or sharegpt (LLaMA-Factory)")] = "openai",
    where: Annotated[str, typer.Option("--where", help="which episodes; empty = all valid ones")] = "accepted=true",
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Conversations as rows of messages and tools.

    Example: muarl export chat runs/cold --out cold.jsonl
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import MuarlError
    from muarl_cli.pipeline.dataset import FORMATS, export_chat

    if form not in FORMATS:
        raise MuarlError(f"unknown format {form!r}", next_step=f"one of: {', '.join(FORMATS)}")
    if str(out) == "-":
        raise MuarlError(
            "--out is a file", why="the rows are written whole or not at all", next_step="--out rows.jsonl"
        )
    talk = Talk(json=json)
    with talk.data_only():
        talk.result(export_chat(log, out, form, where))
    return 0


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
