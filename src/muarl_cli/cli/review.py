"""`muarl review`: look at accepted demonstrations, page by page, and accept or reject them.

Examples:
  muarl review runs/cold --most 20 --reviewer ann
  muarl synth-coldstart --out runs/cold   (again: makes up for what was rejected)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o


def review(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of synth-coldstart")],
    most: Annotated[int, typer.Option("--most", help="this many pages; 0 = all that wait")] = 0,
    reviewer: Annotated[str, typer.Option("--reviewer", help="who decides, for the record")] = "",
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    import sys

    from muarl_cli.cli.console import Talk
    from muarl_cli.pipeline import review as pages

    talk = Talk(json=json)

    def ask(prompt: str) -> str | None:
        talk.err.write(prompt)
        talk.err.flush()
        line = sys.stdin.readline()
        return line if line else None

    with talk.data_only():
        talk.result(pages.run(run, reviewer, most, talk.say, ask))
    return 0
