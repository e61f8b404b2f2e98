"""Scores of runs beside those of the paper, each labelled by the data and the user it was measured with.

Two numbers are comparable only where the data revision, the user and the overlap with training agree, which they rarely
do. Invariant: a row says what of this differs; nothing of the paper's is scaled, averaged or given an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from muarl_cli.conversation.episode import Episode
from muarl_cli.reports.figures import decimal
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.scoring.statistics import Interval
from muarl_cli.scoring.summary import summarise


@lru_cache(maxsize=1)
def published() -> Mapping[str, Any]:
    """The paper's accuracies in percent, with how they were measured."""
    found: dict[str, Any] = yaml.safe_load((files("muarl_cli.reports") / "paper_scores.yaml").read_text("utf-8"))
    return found


def paper_tables(runs: Sequence[RunView]) -> tuple[Table, Table]:
    """(how the scores were measured, the scores beside the paper's): a row a run and benchmark set, and one for a
    benchmark's overall score where a run has all of its sets."""
    rows: list[Mapping[str, Any]] = []
    for run in runs:
        own = [_row(run, name, episodes) for name, episodes in sorted(_by_set(run).items())]
        rows += [*own, *_overall(own)]
    measured = (
        Column("set", "set"),
        Column("run", "run"),
        Column("score", "score", Style.INTERVAL),
        Column("score_faults_failed", "faults as failures", Style.INTERVAL),
        Column("write_tasks", "write tasks only", Style.INTERVAL),
        Column("tasks", "tasks", Style.COUNT),
        Column("trials", "trials", Style.COUNT),
        Column("user", "user"),
        Column("data", "data"),
    )
    beside = (
        Column("set", "set"),
        Column("run", "run"),
        Column("percent", "score (%)"),
        *(Column(model, f"{model} (paper)") for model in published()["models"]),
        Column("differs", "not as in the paper"),
    )
    notes = (
        f"the paper: {published()['user_model']} as the user, {published()['trials']} runs averaged, no intervals",
        "the paper's models were trained on TAU1 test, whose gold writes most TAU2 retail and airline tasks repeat",
    )
    sets = tuple(row for row in rows if "score" in row)
    return Table("How the scores were measured", measured, sets), Table("Beside the paper", beside, tuple(rows), notes)


def _by_set(run: RunView) -> dict[str, list[Episode]]:
    found: dict[str, list[Episode]] = {}
    for episode in run.own:
        found.setdefault(episode.scenario, []).append(episode)
    return {name: episodes for name, episodes in found.items() if name in published()["sets"]}


def _row(run: RunView, name: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    writes = {key: task.writes for key, (_, task) in run.tasks.items()}
    known = writes if {e.task_hash for e in episodes} <= writes.keys() else None
    score = summarise(episodes, resamples=run.resamples, seed=run.seed, writes=known)
    user = ", ".join(sorted({_user(episode) for episode in episodes}))
    data = ", ".join(sorted({_data(episode) for episode in episodes}))
    values = zip(published()["models"], published()["sets"][name], strict=True)
    return {
        "set": name,
        "run": run.name,
        "score": score.score,
        "score_faults_failed": score.score_faults_failed,
        "write_tasks": score.write_tasks,
        "tasks": len(score.tasks),
        "trials": score.trials[0],
        "percent": _percent(score.score),
        "user": user,
        "data": data,
        **{model: "–" if value is None else decimal(value, 1) for model, value in values},
        "differs": ", ".join(_differences(name, user, data, score.trials[0], run)),
    }


def _overall(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The unweighted mean over a benchmark's sets, as the paper has it; without an interval."""
    found = []
    for source, values in published()["overall"].items():
        sets = [name for name in published()["sets"] if name.startswith(f"{source}:")]
        own = [row for row in rows if row["set"] in sets and row["score"] is not None]
        if len(own) == len(sets):
            mean = sum(row["score"].mean for row in own) / len(own)
            named = zip(published()["models"], values, strict=True)
            found.append(
                {
                    "set": f"{source} overall, unweighted",
                    "run": own[0]["run"],
                    "percent": decimal(100 * mean, 1),
                    **{model: decimal(value, 1) for model, value in named},
                    "differs": ", ".join(dict.fromkeys(d for row in own for d in row["differs"].split(", ") if d)),
                }
            )
    return found


def _differences(name: str, user: str, data: str, trials: int, run: RunView) -> list[str]:
    source = name.split(":")[0]
    said = []
    if source not in ("bfcl",) and name != "acebench:multi_step" and published()["user_model"] not in user:
        said.append("user")
    if published()["data"][source] not in data:
        said.append("data revision")
    if trials != published()["trials"]:
        said.append("trials")
    if run.agent != "policy":
        said.append("a scripted agent")
    if run.overlap_notes:
        said.append(f"trained on {len((run.summary or {})['overlap'])} of the tasks")
    return said


def _percent(score: Interval | None) -> str:
    if score is None:
        return "–"
    return f"{decimal(100 * score.mean, 1)} [{decimal(100 * score.low, 1)}, {decimal(100 * score.high, 1)}]"


def _user(episode: Episode) -> str:
    return " ".join(str(episode.user.get(key) or "") for key in ("backend", "model")).strip()


def _data(episode: Episode) -> str:
    """The split and the revision that the scenario wrote into the episode."""
    revision = episode.detail.get("revision") or {}
    return " ".join([episode.split, *(str(value) for value in revision.values())])
