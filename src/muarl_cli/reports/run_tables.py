"""Tables over whole runs: spend, lineage, users, settings that differ.

Invariant: like all tables they hold raw values; the terminal, the JSON and the page write the same cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.records.run import settings_diff
from muarl_cli.reports.layers import Judged, episode_row
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.scoring.summary import ScoreSummary

COLUMNS = 6
"""groups of users side by side"""


def named_scores(runs: Sequence[RunView]) -> dict[str, ScoreSummary]:
    """All scores of several runs by name: floors once where a single run has them, else under the name of their run."""
    found: dict[str, ScoreSummary] = {}
    for run in runs:
        for name, score in run.scores.items():
            label = run.name if name == run.agent else name if len(runs) == 1 else f"{name} of {run.name}"
            found[label] = score
    floors = [name for run in runs for name in run.floors]
    for name in dict.fromkeys(floors):  # floors of the same tasks are the same: shown once
        of = [key for key in found if key == name or key.startswith(f"{name} of ")]
        if len({tuple(sorted(found[key].task_means.items())) for key in of}) == 1:
            first = found[of[0]]
            for key in of:
                del found[key]
            found[name] = first
    return found


def run_table(runs: Sequence[RunView]) -> Table:
    """What each run is: stage, agent, user, tasks, episodes, whether it is finished, what it cost."""
    columns = (
        Column("name", "run"),
        Column("stage", "stage"),
        Column("run_id", "run id"),
        Column("agent", "agent"),
        Column("user", "user"),
        Column("tasks", "tasks"),
        Column("episodes", "episodes", Style.COUNT),
        Column("state", "state"),
        Column("spent", "US dollars", Style.DECIMAL),
        Column("reserved", "reserved", Style.DECIMAL),
    )
    rows = tuple(
        {
            "name": run.name,
            "stage": run.stage,
            "run_id": run.run_id,
            "agent": ", ".join(sorted({_words(e.agent, "kind", "model") for e in run.own})) or None,
            "user": ", ".join(sorted({_words(e.user, "backend", "model") for e in run.own})) or None,
            "tasks": ", ".join(sorted({f"{e.scenario}:{e.split}" for e in run.own})) or None,
            "episodes": len(run.episodes),
            "state": "finished" if run.summary is not None else "not finished",
            "spent": run.spend[0] if run.spend else None,
            "reserved": run.spend[1] if run.spend else None,
        }
        for run in runs
    )
    notes = tuple(f"{run.name}: {len(run.damage)} damaged lines passed over" for run in runs if run.damage)
    return Table("Runs", columns, rows, notes)


def user_table(runs: Sequence[RunView]) -> Table:
    """The user's side: how often it ended a conversation, broke its contract, was disturbed on purpose."""
    columns = (
        Column("run", "run"),
        Column("user", "user"),
        Column("episodes", "episodes", Style.COUNT),
        Column("user_stop", "ended by user", Style.PERCENT),
        Column("user_fault", "user faults", Style.PERCENT),
        Column("user_turns", "user turns", Style.DECIMAL),
        Column("injectors", "injectors fired"),
    )
    rows = []
    for run in runs:
        users: dict[str, list[Any]] = {}
        for episode in run.own:
            users.setdefault(_words(episode.user, "backend", "model", "persona"), []).append(episode)
        for name, episodes in sorted(users.items()):
            fired = Counter(str(i) for e in episodes for i in e.user.get("injectors_fired") or ())
            turns = [sum(ev.actor.value == "user" and ev.kind.value == "say" for ev in e.events) for e in episodes]
            rows.append(
                {
                    "run": run.name,
                    "user": name,
                    "episodes": len(episodes),
                    "user_stop": _share(episodes, "user_stop"),
                    "user_fault": _share(episodes, "user_fault"),
                    "user_turns": sum(turns) / len(turns),
                    "injectors": ", ".join(f"{key} {n}" for key, n in sorted(fired.items())) or None,
                }
            )
    return Table("Users", columns, tuple(rows))


def audit_tables(runs: Sequence[RunView]) -> list[Table]:
    """The user audit S1 to S17 (`users.audit`): a column a run, back-end and persona, at most six a table."""
    from muarl_cli.users.audit import METRICS, audit
    from muarl_cli.users.audit_report import value_text

    groups = [(run.name, group) for run in runs for group in audit(run.own).groups]
    found = []
    for start in range(0, len(groups), COLUMNS):
        part = {f"g{i}": group for i, group in enumerate(groups[start : start + COLUMNS])}
        names = {key: " ".join(filter(None, (f"{run}:", g.backend, g.persona))) for key, (run, g) in part.items()}
        columns = (Column("id", "id"), Column("metric", "metric"), *(Column(key, names[key]) for key in part))
        rows = tuple(
            {
                "id": metric.id,
                "metric": metric.name,
                **{key: value_text(group[metric.id]) for key, (_, group) in part.items()},
            }
            for metric in METRICS
            if any(group[metric.id].value is not None for _, group in part.values())
        )
        failed = [f"{names[key]}: {', '.join(g.failed)} miss their gates" for key, (_, g) in part.items() if g.failed]
        found.append(Table("User audit", columns, rows, tuple(failed)))
    return found


def ablation_table(runs: Sequence[RunView]) -> Table | None:
    """Runs of one stage that differ in settings: each difference from the first, beside its score; None without any."""
    pairs = []
    first: dict[str, RunView] = {}
    for run in runs:
        if run.settings and run.own:
            base = first.setdefault(run.stage, run)
            changed = [] if base is run else settings_diff(base.settings, run.settings)
            pairs.append((base, run, changed))
    if not any(changed for _, _, changed in pairs):
        return None
    columns = (
        Column("run", "run"),
        Column("changed", "differs from the first in"),
        Column("score", "score", Style.INTERVAL),
        Column("write_tasks", "write tasks only", Style.INTERVAL),
    )
    rows = tuple(
        {
            "run": run.name,
            "changed": "; ".join(changed[:8]) + ("; …" if len(changed) > 8 else "") or f"(first {base.stage})",
            "score": run.main.score,
            "write_tasks": run.main.write_tasks,
        }
        for base, run, changed in pairs
    )
    return Table("Ablation", columns, rows)


def lineage_table(runs: Sequence[RunView]) -> Table:
    """What each run was made from, and how many tasks anything behind it was trained on."""
    columns = (
        Column("run", "run"),
        Column("stage", "stage"),
        Column("parents", "made from"),
        Column("tasks", "own tasks", Style.COUNT),
        Column("trained", "tasks trained on", Style.COUNT),
        Column("by", "trained by"),
        Column("seeds", "seeds"),
        Column("versions", "versions"),
    )
    rows = tuple(
        {
            "run": run.name,
            "stage": found.stage,
            "parents": ", ".join(f"{p.role} {p.path}" for p in found.parents) or None,
            "tasks": len(found.tasks),
            "trained": len(found.trained_on()),
            "by": ", ".join(f"{known.stage} {known.artifact[:12]} ({len(known.tasks)})" for known in found.trained)
            or None,
            "seeds": ", ".join(f"{name} {value}" for name, value in found.seeds.items()) or None,
            "versions": ", ".join(f"{name} {value}" for name, value in sorted(found.versions.items())) or None,
        }
        for run in runs
        if (found := run.lineage) is not None
    )
    return Table("Lineage", columns, rows)


def episode_table(run: RunView, keep: Callable[[Episode], bool], limit: int) -> Table:
    """One row an episode that `keep` lets through, at most `limit` (0 = all)."""
    columns = (
        Column("id", "episode"),
        Column("task", "task"),
        Column("stage", "stage"),
        Column("step", "step", Style.COUNT),
        Column("rollout", "rollout", Style.COUNT),
        Column("class", "outcome"),
        Column("reward", "reward", Style.DECIMAL),
        Column("end", "end"),
        Column("turns", "turns", Style.COUNT),
        Column("rules", "broken rules"),
    )
    chosen = [episode for episode in run.episodes if keep(episode)]
    rows = []
    for episode in chosen[: limit or None]:
        judged = run.judged.get(episode.episode_id, Judged({}))
        rows.append({**episode_row(episode, judged), "rules": ", ".join(judged.broken) or None})
    left = len(chosen) - len(rows)
    notes = (f"{left:,} more; --limit 0 shows all",) if left else ()
    return Table(f"{run.name}: {len(chosen):,} of {len(run.episodes):,} episodes", columns, tuple(rows), notes)


def _words(value: Mapping[str, Any], *names: str) -> str:
    return " ".join(str(value[name]) for name in names if value.get(name))


def _share(episodes: Sequence[Any], reason: str) -> float:
    return sum(e.end.reason.value == reason for e in episodes) / len(episodes)
