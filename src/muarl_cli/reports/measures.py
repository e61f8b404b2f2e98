"""Measures: every figure of a run that has a name, once, for tables, comparisons and gates alike.

Invariant: a measure that cannot be taken (no layers judged, no valid episode) has the value None, and nobody reads that
as a pass; what is paired in a comparison is the same values by task that the measure is the mean of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from muarl_cli.conversation.episode import Episode
from muarl_cli.reports.layers import LAYERS, Judged, layer_passes, rates
from muarl_cli.reports.run_view import RunView
from muarl_cli.scoring.statistics import Interval, bootstrap_mean, zero_events_upper_bound
from muarl_cli.scoring.summary import ScoreSummary


@dataclass(frozen=True)
class Measure:
    """One figure. `by_task` holds the values it is the mean of (empty for counts); `interval` is over tasks."""

    name: str
    value: float | None
    interval: Interval | None = None
    by_task: Mapping[str, float] = field(default_factory=dict)
    count: bool = False
    """a number of events, not a mean"""


def measures(run: RunView) -> dict[str, Measure]:
    """All measures of a run's own episodes, by name. Raises `MuarlError` where it has none."""
    score = run.main
    found = [*_scores(score), *layer_measures(run, run.own), *_counts(score)]
    found += [Measure(name, value) for name, value in {**score.usage, **score.behaviour.to_json()}.items()]
    return {measure.name: measure for measure in found}


def layer_measures(run: RunView, episodes: Sequence[Episode]) -> list[Measure]:
    """Clean and corrupt success, the pass rate of each layer where it applies, and the count of safety events."""
    judged = run.judged
    ways: dict[str, Callable[[Judged], bool | None]] = {
        "clean_success": lambda j: j.clean,
        "corrupt_success": lambda j: j.corrupt,
        **{name: layer_passes(name) for name in LAYERS},
    }
    found = [_mean(name, rates(episodes, judged, way), run) for name, way in ways.items()]
    known = [judged[e.episode_id] for e in episodes if e.valid and e.episode_id in judged]
    seen = [j for j in known if "safety" in j.layers]
    events = float(sum(j.safety_events for j in seen)) if seen else None
    return [*found, Measure("safety_events", events, count=True)]


def safety_bound(episodes: Sequence[Episode], judged: Mapping[str, Judged]) -> float | None:
    """One-sided 95 % upper bound of the share of episodes with a safety event where none was seen, else None."""
    seen = [judged[e.episode_id] for e in episodes if e.valid and e.episode_id in judged]
    seen = [j for j in seen if "safety" in j.layers]
    if not seen or any(j.safety_events for j in seen):
        return None
    return zero_events_upper_bound(len(seen))


def by_domain(measure: Measure, domains: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """The values of a measure by scenario, each by task key."""
    found: dict[str, dict[str, float]] = {}
    for key, value in measure.by_task.items():
        found.setdefault(domains.get(key, ""), {})[key] = value
    return dict(sorted(found.items()))


def domains_of(run: RunView) -> dict[str, str]:
    """Task key to scenario."""
    return {f"{e.task_hash}:{e.task_id}": e.scenario for e in run.episodes}


def _scores(score: ScoreSummary) -> list[Measure]:
    means = score.task_means
    writes = {t.key: t.mean for t in score.tasks if t.needs_write is True and t.mean is not None}
    others = {t.key: t.mean for t in score.tasks if t.needs_write is False and t.mean is not None}
    strict = {t.key: t.mean_faults_failed for t in score.tasks}
    found = [
        _of("score", score.score, means),
        _of("score_faults_failed", score.score_faults_failed, strict),
        _of("write_tasks", score.write_tasks, writes),
        _of("no_write_tasks", score.no_write_tasks, others),
    ]
    found += [_of(f"pass_hat_{k}", value, {}) for k, value in score.pass_hat.items()]
    found += [_of(f"pass_at_{k}", value, {}) for k, value in score.pass_at.items()]
    return found


def _counts(score: ScoreSummary) -> list[Measure]:
    return [
        Measure("fault_share", score.fault_share),
        Measure("invalid", float(score.done - score.valid), count=True),
        Measure("episodes_done", float(score.done), count=True),
        Measure("episodes_valid", float(score.valid), count=True),
        Measure("all_correct", score.all_correct),
        Measure("all_wrong", score.all_wrong),
    ]


def _of(name: str, interval: Interval | None, by_task: Mapping[str, float]) -> Measure:
    return Measure(name, interval.mean if interval else None, interval, by_task)


def _mean(name: str, by_task: Mapping[str, float], run: RunView) -> Measure:
    if not by_task:
        return Measure(name, None)
    interval = bootstrap_mean(list(by_task.values()), resamples=run.resamples, seed=run.seed)
    return Measure(name, interval.mean, interval, by_task)
