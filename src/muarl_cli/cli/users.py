"""`muarl users`: audit simulated users from a log, and compare an agent's score between them.

Examples:
  muarl users audit runs/demo/rollout --gate
  muarl users audit runs/eval --judge-model qwen --judge-base-url http://127.0.0.1:8000/v1
  muarl users audit runs/like --against runs/people
  muarl users compare runs/eval-scripted runs/eval-llm
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muarl_cli.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muarl_cli.conversation.episode import Episode

app = typer.Typer(name="users", help="Audit simulated users, and compare scores between them.", no_args_is_help=True)


@app.command()
def audit(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="run folder, episode log, or - for standard input")],
    gate: Annotated[bool, typer.Option("--gate", help="exit 1 where a gate fails")] = False,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="IMPORTED", help="folder of imported chats to compare with")
    ] = None,
    judge_model: Annotated[
        str, typer.Option("--judge-model", help="model that finds whose error decided a failure (S17)")
    ] = "",
    judge_base_url: Annotated[str, typer.Option("--judge-base-url", help="address that serves the judge")] = "",
    max_usd: o.MaxUsd = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write the audit as a page")] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """The metrics S1 to S17 with their gates, for each back-end and persona, from the log alone.

    Example: muarl users audit runs/demo/rollout --gate --html audit.html
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.records.files import replace_file
    from muarl_cli.records.log import iter_episodes
    from muarl_cli.users import audit_report
    from muarl_cli.users.audit import audit as measure
    from muarl_cli.users.likeness import against as compare_with

    talk = Talk(json=json)
    with talk.data_only():
        episodes: Iterable[Episode] = iter_episodes(log)
        judged = None
        if judge_model:
            from muarl_cli.pipeline.judging import ask_judge

            episodes = list(episodes)
            place = log if log.is_dir() else Path()
            judged = ask_judge(episodes, judge_model, judge_base_url, max_usd or 0.0, place)
        found = measure(episodes, judged)
        beside = compare_with(found, measure(iter_episodes(against)), str(against)) if against else ()
        if not found.groups:
            raise MuarlError(
                "the log holds no episode",
                where=str(log),
                next_step="muarl status RUN shows what there is",
                code=ExitCode.MISSING_INPUT,
            )
        if html is not None:
            replace_file(html, audit_report.html(found, str(log), beside).encode())
        for table in audit_report.tables(found):
            talk.show(table.rich())
        for table in audit_report.likeness_tables(beside):
            talk.show(table.rich())
        if found.failed:
            talk.warn(f"{audit_report.failing(found.failed)}: {', '.join(found.failed)}")
    if json:
        talk.result(found.to_json() | ({"against": [one.to_json() for one in beside]} if against else {}))
    return int(ExitCode.GATE_FAILED if gate and found.failed else ExitCode.OK)


@app.command()
def compare(
    logs: Annotated[list[Path], typer.Argument(metavar="A B...", help="logs of the same tasks and seeds, other users")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    """How far the agent's score depends on who plays the user (S16), on the same tasks and seeds.

    Example: muarl users compare runs/eval-scripted runs/eval-llm
    """
    from muarl_cli.cli.console import Talk
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.records.log import iter_episodes
    from muarl_cli.users.audit_report import spread_table
    from muarl_cli.users.spread import spread_of

    if len(logs) < 2 or len(set(logs)) < len(logs):
        raise MuarlError("two different logs are needed", next_step="muarl users compare A B", code=ExitCode.USAGE)
    talk = Talk(json=json)
    with talk.data_only():
        found = spread_of({str(log): iter_episodes(log) for log in logs})
        talk.show(spread_table(found).rich())
    if json:
        talk.result(found.to_json())
    return int(ExitCode.OK)
