"""`muarl compare`: the paired difference of two runs, with what speaks against it.

Examples:
  muarl compare runs/eval_sft runs/eval_rl
  muarl compare runs/eval_sft runs/eval_rl --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="run folder: before")],
    after: Annotated[Path, typer.Argument(metavar="B", help="run folder: after; differences are B − A")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.reports.comparison import compare_runs
    from muarl_cli.reports.run_view import load_runs

    talk = Talk(json=json)
    with talk.data_only():
        one, other = load_runs([before, after])
        table, warnings = compare_runs(one, other)
        talk.show(table.rich())
    if json:
        talk.result(
            {"before": str(before), "after": str(after), "rows": table.to_json(), "cells": table.texts()}
            | {"warnings": warnings, "notes": list(table.notes)}
        )
    return 0
