"""`muarl export`: hand what was made to other programs.

Examples:
  muarl export chat runs/cold --out cold.jsonl
  muarl export chat runs/cold --format sharegpt --where accepted=true,scenario=builtin:library --out library.jsonl
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
    talk = Talk(json=json)
    with talk.data_only():
        talk.result(export_chat(log, out, form, where))
    return 0
