"""Two runs side by side: paired differences by task, per layer and domain, and what speaks against comparing them.

Invariant: a difference is always `after` minus `before` over the tasks both have; p-values are corrected over all rows
of the table; different users, policies, data or shares of faults are said, never hidden in a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from muarl_cli.reports.layers import LAYERS
from muarl_cli.reports.measures import Measure, by_domain, domains_of, measures
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.scoring.statistics import Difference, Interval, bootstrap_mean, holm, paired_difference
from muarl_cli.scoring.summary import MAX_FAULT_GAP

PAIRED = ("score", "score_faults_failed", "write_tasks", "no_write_tasks", "clean_success", "corrupt_success", *LAYERS)
"""the measures that are compared task by task"""


@dataclass(frozen=True)
class Row:
    """One measure in one domain ("" for all), on both sides."""

    measure: str
    domain: str
    before: Interval
    after: Interval
    difference: Difference


def compare_runs(before: RunView, after: RunView) -> tuple[Table, list[str]]:
    """The table of paired differences, and the warnings. Raises `MuarlError` where the two share no task."""
    left, right = measures(before), measures(after)
    domains = {**domains_of(before), **domains_of(after)}
    rows = [row for name in PAIRED for row in _rows(name, left.get(name), right.get(name), domains, after)]
    if not rows:  # says why in its own words
        paired_difference(left["score"].by_task, right["score"].by_task, resamples=1, seed=0)
    corrected = holm({f"{row.measure}/{row.domain}": row.difference.p for row in rows})
    columns = (
        Column("measure", "measure"),
        Column("domain", "domain"),
        Column("before", before.name, Style.INTERVAL),
        Column("after", after.name, Style.INTERVAL),
        Column("difference", "difference", Style.DIFFERENCE),
        Column("n", "tasks", Style.COUNT),
        Column("p_holm", "p (Holm)", Style.P_VALUE),
        Column("verdict", "verdict"),
    )
    values = tuple(
        {
            "measure": row.measure,
            "domain": row.domain or "all",
            "before": row.before,
            "after": row.after,
            "difference": row.difference,
            "n": row.difference.n,
            "p_holm": corrected[f"{row.measure}/{row.domain}"],
            "verdict": verdict(row.difference),
        }
        for row in rows
    )
    notes = warnings(before, after)
    absent = [name for name in ("clean_success", *LAYERS) if name not in {row.measure for row in rows}]
    said = [f"layers: not scored on both sides ({', '.join(absent)})"] if absent else []
    title = f"{after.name} − {before.name}, paired by task"
    return Table(title, columns, values, (*(f"warning: {note}" for note in notes), *said)), notes


def over_all(table: Table) -> Table:
    """A table of `compare_runs` without its rows a domain."""
    return replace(table, rows=tuple(row for row in table.rows if row["domain"] == "all"))


def verdict(difference: Difference) -> str:
    """What the interval says."""
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "no difference seen"


def warnings(before: RunView, after: RunView) -> list[str]:
    """What a reader must know before believing a difference."""
    said = []
    for what, one, other in (
        ("users", _users(before), _users(after)),
        ("policies or tools", _policies(before), _policies(after)),
        ("temperatures", _temperature(before), _temperature(after)),
    ):
        if one != other:
            said.append(f"different {what}: {_list(one)} against {_list(other)}")
    ours, theirs = ({e.task_hash for e in run.own} for run in (before, after))
    if ours != theirs:
        said.append(
            f"different tasks: {len(ours & theirs)} shared, {len(ours - theirs)} only in {before.name}, "
            f"{len(theirs - ours)} only in {after.name}; only shared ones are compared"
        )
    if before.main.trials != after.main.trials:
        (low, high), (least, most) = before.main.trials, after.main.trials
        said.append(f"different numbers of trials: {low} to {high} against {least} to {most}")
    gap = abs(before.main.fault_share - after.main.fault_share)
    if gap > MAX_FAULT_GAP:
        said.append(f"the shares of invalid episodes differ by {gap:.1%}")
    for run in (before, after):
        if run.main.result not in ("ok",):
            said.append(f"{run.name} is {run.main.result}: {'; '.join(run.main.reasons)}")
        if run.summary is None and run.settings:
            said.append(f"{run.name} is not finished")
        said += run.overlap_notes
    return said


def _rows(
    name: str, left: Measure | None, right: Measure | None, domains: Mapping[str, str], run: RunView
) -> list[Row]:
    if left is None or right is None or not left.by_task.keys() & right.by_task.keys():
        return []
    parts = {"": (left.by_task, right.by_task)}
    ours, theirs = by_domain(left, domains), by_domain(right, domains)
    if len({*ours, *theirs}) > 1:
        parts |= {name: (ours.get(name, {}), theirs.get(name, {})) for name in sorted({*ours, *theirs})}
    return [_row(name, domain, one, other, run) for domain, (one, other) in parts.items() if one.keys() & other.keys()]


def _row(name: str, domain: str, one: Mapping[str, float], other: Mapping[str, float], run: RunView) -> Row:
    how: dict[str, Any] = {"resamples": run.resamples, "seed": run.seed}
    before, after = (bootstrap_mean(list(side.values()), **how) for side in (one, other))
    return Row(name, domain, before, after, paired_difference(one, other, **how))


def _users(run: RunView) -> frozenset[str]:
    return frozenset(
        " ".join(str(e.user.get(key) or "") for key in ("backend", "model", "prompt_hash")).strip() for e in run.own
    )


def _policies(run: RunView) -> frozenset[str]:
    return frozenset(f"{e.scenario} {e.policy_hash}" for e in run.own)


def _temperature(run: RunView) -> frozenset[str]:
    if run.agent != "policy":
        return frozenset({"scripted"})
    value = run.settings.get("temperature")
    return frozenset({str(value)})


def _list(values: frozenset[str]) -> str:
    return ", ".join(sorted(values)) or "none"
