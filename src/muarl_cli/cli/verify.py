"""`muarl verify`: verify accepted demonstrations again, from the log alone.

Logged calls are carried out again, those of MCP scenarios on their real servers. Exit code 1: something does not pass;
2: something could not be verified, since its server is not installed.

Examples:
  muarl verify runs/cold
  muarl verify runs/cold --benchmarks
  muarl verify runs/cold --accept verified --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

SHOWN = 10
"""failures printed for a person; --json has all"""


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of synth-coldstart")],
    accept: Annotated[str, typer.Option("--accept", help="verified, outcome or all; default: as the run")] = "",
    benchmarks: Annotated[
        bool, typer.Option("--benchmarks", help="write the card again; installed benchmarks never read before are read")
    ] = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.pipeline import reverify

    if accept not in ("", "verified", "outcome", "all"):
        raise MuarlError(f"--accept {accept!r} is unknown", next_step="verified, outcome or all")
    talk = Talk(json=json)
    with talk.data_only():
        result = reverify.run(run, accept, benchmarks)
        failed = result["failed"]
        for key, reasons in list(failed.items())[:SHOWN]:
            talk.warn(f"{key}: {'; '.join(reasons)}")
        for name, row in result["not_replayed"].items():
            talk.warn(f"{name}: {row['episodes']} {row['why']}")
        if result["not_verified"]:
            talk.warn("next: muarl mcp install, then verify again")
        talk.result(result if json else {**result, "failed": len(failed)})
    if failed or result["twice"]:
        return int(ExitCode.GATE_FAILED)
    return int(ExitCode.PARTIAL if result["not_verified"] else ExitCode.OK)
