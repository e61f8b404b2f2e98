"""`muarl import`: official TAU1 and TAU2 trajectories as a log of ours.

Examples:
  muarl import gpt-4o-airline.json --out runs/gpt-4o-airline
  muarl rescore runs/gpt-4o-airline
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="TAU1's list of trajectories, TAU2's results.json or folder")
]


def import_(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    domain: Annotated[str, typer.Option("--domain", help="airline, retail or telecom, if the file does not tell")] = "",
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.benchmarks.trajectories import import_trajectories
    from muarl_cli.cli.console import Talk

    talk = Talk(json=json)
    with talk.data_only():
        found = import_trajectories(file, out, domain)
        talk.say(f"next: muarl rescore {out}")
    talk.result(found)
    return 0
