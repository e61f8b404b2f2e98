"""`muarl show`: an episode as a transcript, or the episodes of a run as a list.

Examples:
  muarl show runs/eval --where reward=0
  muarl show runs/eval 1c9159d8
  muarl show 1c9159d82cea2f6e2c149f73
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o

_STYLES = {"head": "bold", "agent": "blue", "user": "magenta", "world": "green", "fail": "bold red", "note": "dim"}


def show(
    target: Annotated[str, typer.Argument(metavar="EPISODE_ID|RUN", help="an episode id, its beginning, or a run")],
    episode_id: Annotated[str, typer.Argument(metavar="[EPISODE_ID]", help="an episode of that run")] = "",
    where: Annotated[str, typer.Option("--where", help="filter of the list, e.g. reward=0,end.reason=transfer")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="rows of the list; 0 = all")] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="the line of the log, as JSON")] = False,
    runs: Annotated[Path, typer.Option("--runs", help="where to look for an episode id")] = Path("runs"),
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.reports.run_view import is_run

    talk = Talk(json=json)
    if is_run(target) and not episode_id:
        _list(Path(target), where, limit, talk)
        return 0
    folders, wanted = ([Path(target)], episode_id) if episode_id else (_below(runs), target)
    with talk.data_only():
        view, episode = _find(folders, wanted)
        judged = view.judged
    from muarl_cli.reports.layers import Judged

    _transcript(episode, judged.get(episode.episode_id, Judged({})), raw or json, talk)
    return 0


def _transcript(episode: Any, judged: Any, raw: bool, talk: Any) -> None:
    from rich.text import Text

    from muarl_cli.cli.console import clean
    from muarl_cli.records.codec import to_dict
    from muarl_cli.reports.transcript import transcript

    if raw:
        findings = [dict(finding) for finding in judged.findings]
        talk.json = True
        talk.result({**to_dict(episode), "layers": dict(judged.layers), "findings": findings})
        return
    for line in transcript(episode, judged):
        talk.show(Text(clean(line.text), style=_STYLES.get(line.role, "")))


def _find(folders: list[Path], wanted: str) -> tuple[Any, Any]:
    """The run and the episode whose id begins with `wanted`; raises `MuarlError` for none, and for more than one."""
    from muarl_cli.errors import ExitCode, MuarlError
    from muarl_cli.reports.run_view import load_run, with_tasks

    found = []
    for folder in folders:
        view = load_run(folder, where=lambda e: e.episode_id.startswith(wanted))
        found += [(view, episode) for episode in view.episodes]
    if not found:
        raise MuarlError(
            f"no run and no episode {wanted!r}",
            where=", ".join(map(str, folders[:3])) or "no runs here",
            next_step="muarl ls shows the runs, muarl show RUN its episodes",
            code=ExitCode.MISSING_INPUT,
        )
    if len(found) > 1:
        raise MuarlError(
            f"{len(found)} episodes begin with {wanted!r}",
            why="; ".join(f"{episode.episode_id} in {view.folder}" for view, episode in found[:5]),
            next_step="give more of the id, or the run before it: muarl show RUN ID",
        )
    view, episode = found[0]
    return with_tasks(view), episode


def _below(runs: Path) -> list[Path]:
    from muarl_cli.records.scan import LOG_NAME
    from muarl_cli.reports.run_view import find_runs

    return [folder for folder in find_runs(runs) if (folder / LOG_NAME).exists()]


def _list(run: Path, where: str, limit: int, talk: Any) -> None:
    from muarl_cli.records.where import parse_where
    from muarl_cli.reports.run_tables import episode_table
    from muarl_cli.reports.run_view import load_run, with_tasks

    chosen = parse_where(where)
    with talk.data_only():
        view = with_tasks(load_run(run))
        table = episode_table(view, lambda e: chosen(e, view.verdicts.get(e.episode_id)), limit)
        talk.show(table.rich())
    if talk.json:
        talk.result({"run": str(run), "episodes": table.to_json(), "notes": list(table.notes)})
