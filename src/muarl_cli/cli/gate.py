"""`muarl gate`: pass or fail a run for CI, by bounds and against a baseline.

Examples:
  muarl gate runs/eval --min score=0.6 --max fault_share=0.05
  muarl gate runs/eval --min clean_success=0.6 --max safety_events=0 --baseline runs/main --paired --junit gate.xml
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

Bounds = list[str] | None


def gate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run folder to judge")],
    minimum: Annotated[Bounds, typer.Option("--min", help="NAME=NUMBER, at least; repeatable")] = None,
    maximum: Annotated[Bounds, typer.Option("--max", help="NAME=NUMBER, at most; repeatable")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="run that it must not be worse than")] = None,
    paired: Annotated[bool, typer.Option("--paired", help="compare task by task, with an interval")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="write JUnit XML here")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="append a Markdown table here")] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.records.files import replace_file
    from muarl_cli.reports import gate as checks
    from muarl_cli.reports.run_view import load_runs

    if paired and baseline is None:
        raise MuarlError("--paired compares with a baseline, and none is named", next_step="give --baseline RUN")
    bounds = [checks.parse_bound(text, True) for text in minimum or ()]
    bounds += [checks.parse_bound(text, False) for text in maximum or ()]
    talk = Talk(json=json)
    with talk.data_only():
        views = load_runs([run, baseline] if baseline is not None else [run])
        other = views[1] if baseline is not None else None
        found = checks.check_run(views[0], bounds, other, paired)
        table = checks.gate_table(found, views[0], other)
        talk.show(table.rich())
        if junit is not None:
            replace_file(junit, checks.junit(found, views[0]))
        if markdown is not None:
            with markdown.open("a", encoding="utf-8") as file:  # CI summaries are appended to
                file.write(checks.markdown(table))
    passed = all(check.passed for check in found)
    if json:
        talk.result({"run": str(run), "passed": passed, "checks": table.to_json(), "notes": list(table.notes)})
    return int(ExitCode.OK if passed else ExitCode.GATE_FAILED)
