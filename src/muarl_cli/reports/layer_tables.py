"""Tables of the five layers: one row a result, one row a rule that had an opportunity, and what a guard changed.

The same tables are made from layer summaries (`scoring.layer_summary`) and from runs as their readers see them.
Invariant: cells hold what was counted, unchanged, so that terminal, JSON and report agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.records.run import settings_diff
from muarl_cli.reports.comparison import compare_runs, over_all
from muarl_cli.reports.layers import FAIL, LAYERS, NA, PASS, rule_counts
from muarl_cli.reports.measures import layer_measures, safety_bound
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.scoring.recovery import guarded
from muarl_cli.scoring.trace import read
from muarl_cli.settings.models import FREE_KEYS

NOT_SCORED = "layers: not scored"
_HOW_TO_READ = (
    "clean, corrupt: successes without, and with, a broken rule of policy or safety; layers: pass rate where there was "
    "anything to judge; events: broken safety rules; at most: where none was seen, the share that can have one (95 %)"
)
Row = Mapping[str, Any]


def layer_table(rows: Iterable[Row], notes: Sequence[str] = ()) -> Table:
    """One row a result: clean and corrupt success, the pass rate of each layer where it applies, safety events."""
    columns = (
        Column("name", "result"),
        Column("clean_success", "clean", Style.INTERVAL),
        Column("corrupt_success", "corrupt", Style.INTERVAL),
        *(Column(name, name, Style.INTERVAL) for name in LAYERS),
        Column("safety_events", "events", Style.COUNT),
        Column("safety_bound", "at most", Style.PERCENT),
    )
    return Table("Layers", columns, tuple(rows), (_HOW_TO_READ, *notes))


def rule_table(rows: Iterable[Row]) -> Table:
    """One row a result and rule with at least one opportunity, the most broken first."""
    columns = (
        Column("name", "result"),
        Column("rule", "rule"),
        Column("layer", "layer"),
        Column("opportunities", "opportunities", Style.COUNT),
        Column("failed", "failed", Style.COUNT),
        Column("share", "share failed", Style.PERCENT),
        Column("episodes_failed", "episodes", Style.COUNT),
    )
    applied = [{**row, "share": row["failed"] / row["opportunities"]} for row in rows if row["opportunities"]]
    applied.sort(key=lambda row: (-row["failed"], row["name"], row["rule"]))
    return Table("Rules, by opportunity", columns, tuple(applied))


def summary_layers(results: Mapping[str, Row]) -> Table:
    """The layer table of layer summaries by name."""
    return layer_table(
        {
            "name": name.replace("_", " "),
            **{key: summary[key] for key in ("clean_success", "corrupt_success")},
            **{layer: summary["layers"][layer]["rate"] for layer in LAYERS},
            "safety_events": summary["safety"]["events"],
            "safety_bound": summary["safety"]["upper_bound_if_none"],
        }
        for name, summary in results.items()
    )


def summary_rules(results: Mapping[str, Row]) -> Table:
    """The rule table of layer summaries by name."""
    return rule_table(
        {"name": name.replace("_", " "), "rule": rule, **entry}
        for name, summary in results.items()
        for rule, entry in summary["rules"].items()
    )


def run_layers(runs: Sequence[RunView]) -> Table:
    """The layer table of runs, floors first and once where they are the same in all."""
    floors: dict[str, list[dict[str, Any]]] = {}
    own = []
    for run in runs:
        for name, episodes in run.floors.items():
            floors.setdefault(name, []).append({"name": f"{name} of {run.name}", **_cells(run, episodes)})
        if run.own:
            own.append({"name": run.name, **_cells(run, run.own)})
    rows = []
    for name, found in floors.items():
        same = all({**row, "name": ""} == {**found[0], "name": ""} for row in found)
        rows += [{**found[0], "name": name}] if same else found
    rows = [{**row, "name": str(row["name"]).replace("_", " ")} for row in rows] + own
    return layer_table(rows, [f"{row['name']}: {NOT_SCORED}" for row in own if row["clean_success"] is None])


def run_rules(runs: Sequence[RunView]) -> Table:
    """The rule table of runs."""
    return rule_table(
        {"name": run.name, "rule": rule, **entry}
        for run in runs
        for rule, entry in rule_counts(run.own, run.judged).items()
    )


def _cells(run: RunView, episodes: Sequence[Episode]) -> dict[str, Any]:
    found = {m.name: m for m in layer_measures(run, episodes)}
    events = found.pop("safety_events").value
    return {name: measure.interval for name, measure in found.items()} | {
        "safety_events": None if events is None else int(events),
        "safety_bound": safety_bound(episodes, run.judged),
    }


def layer_shares(run: RunView) -> list[tuple[str, dict[str, float]]]:
    """Of the valid episodes of a run, the shares that pass, fail, or that a layer does not apply to; by layer."""
    known = [run.judged[e.episode_id] for e in run.own if e.valid and e.episode_id in run.judged]
    found = []
    for name in LAYERS:
        verdicts = Counter(j.layers[name] for j in known if name in j.layers)
        total = sum(verdicts.values())
        if total:
            found.append((name, {part: verdicts[part] / total for part in (PASS, FAIL, NA)}))
    return found


def guard_tables(runs: Sequence[RunView]) -> list[Table]:
    """What the guard changed: each run with it, against the first run that differs from it in nothing else."""
    found = []
    for after in runs:
        if not after.settings.get("guard") or not after.own:
            continue
        before = next((run for run in runs if run.own and _only_without_guard(run, after)), None)
        if before is None:
            continue
        refused = Counter(
            rule
            for episode in after.own
            if episode.valid
            for step in read(episode.events).steps
            if (rule := guarded(step))
        )
        said = ", ".join(f"{rule} {n:,}" for rule, n in sorted(refused.items())) or "none"
        table = over_all(compare_runs(before, after)[0])
        notes = (f"writes refused by the guard: {said}", *table.notes)
        found.append(Table(f"Guard: {after.name} − {before.name}", table.columns, table.rows, notes))
    return found


def _only_without_guard(run: RunView, guarded_run: RunView) -> bool:
    if run.stage != guarded_run.stage or run.settings.get("guard"):
        return False
    changed = settings_diff(run.settings, guarded_run.settings, FREE_KEYS)
    return len(changed) == 1 and changed[0].startswith("guard")
