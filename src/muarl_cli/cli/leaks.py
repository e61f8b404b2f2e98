"""`muarl leaks`: what the tasks of B share with those of A, by task, by gold writes, by wording.

Examples:
  muarl leaks tau2:retail:train tau2:retail:test
  muarl leaks runs/rl tau2:retail:base --json
"""

from __future__ import annotations

from typing import Annotated

import typer

from muarl_cli.cli import options as o

_MOST = 20
"""rows shown; all of them are in the JSON"""


def leaks(
    first: Annotated[str, typer.Argument(metavar="A", help="task sets (a,b), log or checkpoint: what was trained on")],
    second: Annotated[str, typer.Argument(metavar="B", help="task sets (a,b) or log: what is to be evaluated")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode
    from muarl_cli.pipeline.leaks import leaks as find
    from muarl_cli.reports.tables import Column, Style, Table

    talk = Talk(json=json)
    with talk.data_only():
        found = find(first, second)
        result = found.to_json()
        rows = [*result["overlaps"], *({**row, "by": "wording", "refuses": False} for row in result["wording"])]
        columns = (
            Column("task", "task of B"),
            Column("with", "shares with"),
            Column("by", "by"),
            Column("share", "share", Style.DECIMAL),
            Column("refuses", "refuses"),
        )
        shown = tuple({**row, "refuses": "yes" if row["refuses"] else "no"} for row in rows[:_MOST])
        notes = (f"{len(rows) - _MOST} more with --json",) if len(rows) > _MOST else ()
        if rows:
            talk.show(Table(f"{second} against {first}", columns, shown, notes).rich())
        talk.say(
            f"of {result['second']['tasks']} tasks: {result['by_task']} equal, {result['by_gold_writes']} with equal "
            f"gold writes, {result['worded_alike']} worded alike; eval refuses {result['refusing']}"
        )
    if json:
        talk.result(result)
    return int(ExitCode.GATE_FAILED if result["refusing"] else ExitCode.OK)
