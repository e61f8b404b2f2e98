"""The score of a set of episodes, with everything that must stand beside it.

A mean alone misleads: beside it stand its interval over tasks, pass^k, the rate on tasks that need a write, and what
became of the episodes that died of a fault, under both denominators. Invariant: the order of episodes never changes a
number, and a faulty episode changes no rate over valid ones.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.scoring.metrics import Behaviour, pool
from muarl_cli.scoring.statistics import (
    Difference,
    Interval,
    bootstrap_mean,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    percentile,
)

MAX_FAULT_SHARE = 0.05
"""above this share of invalid episodes a score says more about the plumbing than about the agent"""
MAX_FAULT_GAP = 0.02
"""two results whose invalid shares differ by more are not compared without a warning"""
_SUCCESS = 1.0 - 1e-6


@dataclass(frozen=True)
class TaskScore:
    """One task's trials. `mean` is over valid trials, None where there is none."""

    key: str
    scenario: str
    task_id: str
    done: int
    valid: int
    successes: int
    mean: float | None
    mean_faults_failed: float
    needs_write: bool | None
    family: str

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "scenario": self.scenario,
            "task_id": self.task_id,
            "done": self.done,
            "valid": self.valid,
            "successes": self.successes,
            "mean": self.mean,
        }


@dataclass(frozen=True)
class ScoreSummary:
    """What `eval` prints and writes. Intervals are over tasks; None means that there was nothing to measure."""

    result: str
    """"ok", "partial" (fewer episodes than planned), "invalid" (too many faults), "empty" (no valid episode)"""
    reasons: tuple[str, ...]
    """why the result is not "ok", and other things a reader must know"""
    planned: int
    done: int
    valid: int
    retried: int
    """attempts that a later attempt of the same work replaced; they count nowhere else"""
    faults: Mapping[str, int]
    """invalid episodes by end reason"""
    trials: tuple[int, int]
    """fewest and most valid trials of a task that has any"""
    score: Interval | None
    """mean reward over tasks, invalid episodes excluded"""
    score_faults_failed: Interval | None
    """the same with invalid episodes counted as failures"""
    pass_hat: Mapping[int, Interval]
    pass_at: Mapping[int, Interval]
    write_tasks: Interval | None
    """tasks that need a write; None where it is not known which do"""
    no_write_tasks: Interval | None
    all_correct: float | None
    """share of tasks all of whose valid trials succeeded"""
    all_wrong: float | None
    usage: Mapping[str, float | None]
    """per valid episode: turns (user_turns + tool_calls + user_tool_calls), agent tokens"""
    families: Mapping[str, Interval]
    ends: Mapping[str, int]
    behaviour: Behaviour
    tasks: tuple[TaskScore, ...]

    @property
    def task_means(self) -> dict[str, float]:
        """Mean reward over valid trials by task key: what paired comparisons are made of."""
        return {task.key: task.mean for task in self.tasks if task.mean is not None}

    @property
    def fault_share(self) -> float:
        return (self.done - self.valid) / self.done if self.done else 0.0

    def headline(self) -> dict[str, float | None]:
        """`mean`, `low`, `high`, and the mean over `write_tasks_only`."""
        score = self.score
        return {
            "mean": score.mean if score else None,
            "low": score.low if score else None,
            "high": score.high if score else None,
            "write_tasks_only": self.write_tasks.mean if self.write_tasks else None,
        }

    @property
    def complete(self) -> bool:
        """Whether every planned episode is there and valid."""
        return self.done >= self.planned and self.valid == self.done

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings, null; no NaN."""
        return {
            "result": self.result,
            "reasons": list(self.reasons),
            "episodes": {
                "planned": self.planned,
                "done": self.done,
                "valid": self.valid,
                "retried": self.retried,
                "faults": dict(self.faults),
                "fault_share": self.fault_share,
            },
            "trials": {"fewest": self.trials[0], "most": self.trials[1]},
            "score": _json(self.score),
            "score_faults_failed": _json(self.score_faults_failed),
            "pass_hat": {str(k): _json(interval) for k, interval in self.pass_hat.items()},
            "pass_at": {str(k): _json(interval) for k, interval in self.pass_at.items()},
            "write_tasks": _json(self.write_tasks),
            "no_write_tasks": _json(self.no_write_tasks),
            "all_correct": self.all_correct,
            "all_wrong": self.all_wrong,
            "usage": dict(self.usage),
            "families": {name: _json(interval) for name, interval in self.families.items()},
            "ends": dict(self.ends),
            "behaviour": self.behaviour.to_json(),
            "tasks": [task.to_json() for task in self.tasks],
        }


@dataclass(frozen=True)
class Comparison:
    """A paired difference of two summaries, and what speaks against trusting it."""

    difference: Difference
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.difference.to_json(), "warnings": list(self.warnings)}


def summarise(
    episodes: Iterable[Episode],
    *,
    resamples: int,
    seed: int,
    writes: Mapping[str, bool] | None = None,
    families: Mapping[str, str] | None = None,
    planned: int | None = None,
) -> ScoreSummary:
    """Score `episodes`, in whatever order they come.

    `writes` says of each task whether solving it takes a write, `families` which intent family it is; both are keyed by
    task hash or task id (the hash wins, and is needed where scenarios share ids). `planned` is the number of episodes
    wanted, by default those there are. Raises `MuarlError` for a task missing from `writes` and for a valid episode
    without a finite reward: missing gold is an error, not a zero.
    """
    kept, retried = _latest_attempts(episodes)
    tasks = _by_task(kept, writes, families)
    good = [episode for episode in kept if episode.valid]
    scored = [task for task in tasks if task.mean is not None]
    trials = (min((t.valid for t in scored), default=0), max((t.valid for t in scored), default=0))
    behaviour = pool(episode.events for episode in good)

    def interval(values: Sequence[float | None]) -> Interval | None:
        present = [value for value in values if value is not None]
        return bootstrap_mean(present, resamples=resamples, seed=seed) if present else None

    def passes(rule: Any) -> dict[int, Interval]:
        by_k = {k: interval([rule(t.valid, t.successes, k) for t in scored]) for k in range(1, trials[0] + 1)}
        return {k: value for k, value in by_k.items() if value is not None}

    by_family = {
        name: interval([t.mean for t in tasks if t.family == name]) for name in sorted({t.family for t in tasks})
    }
    done, wanted = len(kept), len(kept) if planned is None else planned
    faults = Counter(episode.end.reason.value for episode in kept if not episode.valid)
    result, reasons = _verdict(wanted, done, len(good), faults, trials)
    return ScoreSummary(
        result=result,
        reasons=reasons,
        planned=wanted,
        done=done,
        valid=len(good),
        retried=retried,
        faults=_sorted(faults),
        trials=trials,
        score=interval([t.mean for t in tasks]),
        score_faults_failed=interval([t.mean_faults_failed for t in tasks]),
        pass_hat=passes(pass_hat_k),
        pass_at=passes(pass_at_k),
        write_tasks=interval([t.mean for t in tasks if t.needs_write is True]),
        no_write_tasks=interval([t.mean for t in tasks if t.needs_write is False]),
        all_correct=_share(scored, lambda t: t.successes == t.valid),
        all_wrong=_share(scored, lambda t: t.successes == 0),
        usage=_usage(good, behaviour),
        families={name: value for name, value in by_family.items() if value is not None},
        ends=_sorted(Counter(episode.end.reason.value for episode in kept)),
        behaviour=behaviour,
        tasks=tasks,
    )


def by_user(episodes: Iterable[Episode], *, resamples: int, seed: int) -> dict[str, Any]:
    """The score against each user back-end (back-end and model) that took part, under both denominators, and the
    spread: the highest mean minus the lowest. With one back-end the spread is not known (None), not zero."""
    groups: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[" ".join(str(episode.user[k]) for k in ("backend", "model") if episode.user.get(k))].append(episode)
    scores = {name: summarise(groups[name], resamples=resamples, seed=seed) for name in sorted(groups)}
    means = [score.score.mean for score in scores.values() if score.score]
    return {
        "spread": max(means) - min(means) if len(means) > 1 else None,
        "scores": {
            name: {"score": _json(score.score), "score_faults_failed": _json(score.score_faults_failed)}
            for name, score in scores.items()
        },
    }


def compare(before: ScoreSummary, after: ScoreSummary, *, resamples: int, seed: int) -> Comparison:
    """`after` minus `before`, paired by task; warns where the two cannot quite be compared."""
    difference = paired_difference(before.task_means, after.task_means, resamples=resamples, seed=seed)
    warnings = []
    if difference.unpaired:
        warnings.append(f"{difference.unpaired} tasks are on one side only and are left out")
    gap = abs(before.fault_share - after.fault_share)
    if gap > MAX_FAULT_GAP:
        warnings.append(f"the shares of invalid episodes differ by {gap:.1%}")
    if "invalid" in (before.result, after.result):
        warnings.append("one of the two results is invalid")
    return Comparison(difference, tuple(warnings))


def _latest_attempts(episodes: Iterable[Episode]) -> tuple[list[Episode], int]:
    """One episode an id (the latest attempt; of equal attempts the valid one), by id, and how many were replaced."""
    latest: dict[str, Episode] = {}
    seen = 0
    for episode in episodes:
        seen += 1
        other = latest.get(episode.episode_id)
        if other is None or _rank(episode) > _rank(other):
            latest[episode.episode_id] = episode
    return [latest[key] for key in sorted(latest)], seen - len(latest)


def _rank(episode: Episode) -> tuple[int, bool, float]:
    return episode.attempt, episode.valid, episode.reward if episode.reward is not None else -math.inf


def _by_task(
    episodes: Sequence[Episode], writes: Mapping[str, bool] | None, families: Mapping[str, str] | None
) -> tuple[TaskScore, ...]:
    groups: dict[tuple[str, str], list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[episode.task_hash, episode.task_id].append(episode)
    return tuple(_task_score(groups[key], writes, families) for key in sorted(groups))


def _task_score(
    trials: Sequence[Episode], writes: Mapping[str, bool] | None, families: Mapping[str, str] | None
) -> TaskScore:
    first = trials[0]
    rewards = [_reward(episode) for episode in trials if episode.valid]
    needs_write: bool | None = None
    if writes is not None:
        needs_write = writes.get(first.task_hash, writes.get(first.task_id))
        if needs_write is None:
            raise MuarlError(
                f"it is not known whether task {first.task_id!r} needs a write",
                where=f"scenario {first.scenario}, split {first.split}",
                why="the task is not in the task set that was given with the episodes",
                next_step="score the episodes with the task set they were made from",
                code=ExitCode.BAD_DATA,
            )
    names = families or {}
    return TaskScore(
        key=f"{first.task_hash}:{first.task_id}",
        scenario=first.scenario,
        task_id=first.task_id,
        done=len(trials),
        valid=len(rewards),
        successes=sum(reward >= _SUCCESS for reward in rewards),
        mean=math.fsum(rewards) / len(rewards) if rewards else None,
        mean_faults_failed=math.fsum(rewards) / len(trials),
        needs_write=needs_write,
        family=names.get(first.task_hash, names.get(first.task_id, "")),
    )


def _reward(episode: Episode) -> float:
    if episode.reward is None or not math.isfinite(episode.reward):
        raise MuarlError(
            f"episode {episode.episode_id} is valid and has no reward",
            where=f"task {episode.task_id}",
            next_step="score the log again, or remove the episode",
            code=ExitCode.BAD_DATA,
        )
    return float(episode.reward)


def _verdict(
    planned: int, done: int, valid: int, faults: Mapping[str, int], trials: tuple[int, int]
) -> tuple[str, tuple[str, ...]]:
    result, reasons = "ok", []
    if done < planned:
        result = "partial"
        reasons.append(f"{planned - done} of {planned} planned episodes are missing")
    share = (done - valid) / done if done else 0.0
    if share > MAX_FAULT_SHARE:
        result = "invalid"
        kinds = ", ".join(f"{n} {reason}" for reason, n in sorted(faults.items()))
        reasons.append(f"{share:.1%} of the episodes are invalid (more than {MAX_FAULT_SHARE:.0%}): {kinds}")
    if not valid:
        result = "empty"
        reasons.append("no valid episode")
    if trials[0] != trials[1]:
        reasons.append(f"tasks have {trials[0]} to {trials[1]} valid trials: pass^k stops at k = {trials[0]}")
    return result, tuple(reasons)


def _usage(good: Sequence[Episode], behaviour: Behaviour) -> dict[str, float | None]:
    counts, n = behaviour.counts, len(good)
    tokens = [int(episode.usage.get("agent_tokens", 0)) for episode in good]

    def mean(total: float) -> float | None:
        return total / n if n else None

    return {
        "turns": mean(counts.turns),
        "user_turns": mean(counts.user_turns),
        "tool_calls": mean(counts.calls),
        "user_tool_calls": mean(counts.user_calls),
        "agent_tokens": mean(sum(tokens)),
        "agent_tokens_p95": percentile(tokens, 0.95) if tokens else None,
    }


def _share(tasks: Sequence[TaskScore], holds: Any) -> float | None:
    return sum(bool(holds(task)) for task in tasks) / len(tasks) if tasks else None


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts[key] for key in sorted(counts)}


def _json(interval: Interval | None) -> dict[str, Any] | None:
    return interval.to_json() if interval else None
