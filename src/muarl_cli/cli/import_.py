"""`muarl import`: bring what was said elsewhere into the project.

Examples:
  muarl import dataset MUA-RL-Dataset.jsonl --out runs/released
  muarl sft --data runs/released --where accepted=true
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

app = typer.Typer(name="import", help="Bring what was said elsewhere into the project.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Bring what was said elsewhere into the project."""


@app.command()
def dataset(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="rows: JSON lines, a JSON list, or parquet")],
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """Conversations of the released MUA-RL dataset, of APIGen-MT, or in messages-and-tools form, to a run folder.

    Example: muarl import dataset MUA-RL-Dataset.jsonl --out runs/released
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.pipeline.dataset import REFUSED, import_dataset
    from muarl_cli.settings.models import Stage
    from muarl_cli.settings.pages import page

    talk = Talk(json=json)
    with talk.data_only():
        result = import_dataset(file, out, int(page(Stage.SYNTH_COLDSTART)["max_message_words"]))
        if result["refused"]:
            talk.warn(f"{result['refused']} rows could not be read; they stand in {out / REFUSED} with their reasons")
        talk.say(f"next: muarl sft --data {out} --where accepted=true")
        talk.result(result)
    return 0
