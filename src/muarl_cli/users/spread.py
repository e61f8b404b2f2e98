"""S16: how far an agent's score depends on who plays the user, on the same tasks and seeds.

Invariant: only episodes that all logs have (same task hash, same seed, valid in each) are compared, so that a
difference is the users' and not the draw's; what could not be paired is counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.scoring.statistics import Difference, Interval, bootstrap_mean, holm, paired_difference

RESAMPLES = 10_000
SEED = 1
Work = tuple[str, int]
"""task hash and seed"""


@dataclass(frozen=True)
class Side:
    """One log: who plays, and the agent's score against them on the paired episodes."""

    name: str
    user: str
    agent: str
    score: Interval
    left_out: int
    """valid episodes without a partner in every other log"""
    invalid: int


@dataclass(frozen=True)
class Spread:
    """The sides, the largest difference of their scores, and each pair of sides compared."""

    sides: tuple[Side, ...]
    tasks: int
    episodes: int
    """paired episodes of one side"""
    differences: Mapping[tuple[str, str], Difference]
    """by names (first, second): second minus first"""
    warnings: tuple[str, ...]

    @property
    def spread(self) -> float:
        means = [side.score.mean for side in self.sides]
        return max(means) - min(means)

    @property
    def corrected(self) -> dict[tuple[str, str], float]:
        """p-values of the differences with Holm's correction over all pairs."""
        names = {"\0".join(pair): pair for pair in self.differences}
        found = holm({name: self.differences[pair].p for name, pair in names.items()})
        return {pair: found[name] for name, pair in names.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "spread": self.spread,
            "tasks": self.tasks,
            "episodes": self.episodes,
            "users": [
                {
                    "log": side.name,
                    "user": side.user,
                    "agent": side.agent,
                    "score": side.score.to_json(),
                    "left_out": side.left_out,
                    "invalid": side.invalid,
                }
                for side in self.sides
            ],
            "differences": [
                {"from": first, "to": second, **difference.to_json(), "p_holm": self.corrected[first, second]}
                for (first, second), difference in self.differences.items()
            ],
            "warnings": list(self.warnings),
        }


def spread_of(logs: Mapping[str, Iterable[Episode]]) -> Spread:
    """Compare two or more logs, named; raises `MuarlError` (BAD_DATA) where no episode is in all of them."""
    read = {name: _Log(name, episodes) for name, episodes in logs.items()}
    shared = set.intersection(*(set(log.rewards) for log in read.values()))
    if not shared:
        raise MuarlError(
            "nothing to compare: no task and seed is in every log",
            why=", ".join(f"{log.name}: {len(log.rewards)} valid episodes" for log in read.values()),
            next_step="run both with the same --tasks, --seed and number of rollouts, and only the user changed",
            code=ExitCode.BAD_DATA,
        )
    means = {name: log.means(shared) for name, log in read.items()}
    sides = [
        Side(
            name,
            log.users(),
            log.agents(),
            bootstrap_mean(list(means[name].values()), resamples=RESAMPLES, seed=SEED),
            len(log.rewards) - len(shared),
            log.invalid,
        )
        for name, log in read.items()
    ]
    differences = {
        (one, other): paired_difference(means[one], means[other], resamples=RESAMPLES, seed=SEED)
        for one, other in combinations(read, 2)
    }
    return Spread(tuple(sides), len({task for task, _ in shared}), len(shared), differences, _warnings(sides))


class _Log:
    def __init__(self, name: str, episodes: Iterable[Episode]) -> None:
        self.name, self.invalid = name, 0
        self.rewards: dict[Work, list[float]] = defaultdict(list)
        self._users: set[str] = set()
        self._agents: set[str] = set()
        for episode in episodes:
            injectors = ", ".join(sorted(episode.user.get("injectors") or {}))
            user = _named(episode.user, ("backend", "model", "persona"))
            self._users.add(f"{user} with {injectors}" if injectors else user)
            self._agents.add(_named(episode.agent, ("kind", "model", "weight_version")))
            if episode.valid and episode.reward is not None:
                self.rewards[episode.task_hash, episode.seed].append(episode.reward)
            else:
                self.invalid += 1

    def means(self, shared: set[Work]) -> dict[str, float]:
        """Mean reward a task, over the shared seeds."""
        by_task: dict[str, list[float]] = defaultdict(list)
        for work in shared:
            by_task[work[0]] += self.rewards[work]
        return {task: math.fsum(rewards) / len(rewards) for task, rewards in sorted(by_task.items())}

    def users(self) -> str:
        return " + ".join(sorted(self._users))

    def agents(self) -> str:
        return " + ".join(sorted(self._agents))


def _named(party: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " ".join(str(party[key]) for key in keys if party.get(key))


def _warnings(sides: Sequence[Side]) -> tuple[str, ...]:
    found = []
    if len({side.agent for side in sides}) > 1:
        found.append("the agents differ: the spread is not the users' alone")
    if len({side.user for side in sides}) < len(sides):
        found.append("two logs have the same user")
    found += [f"{side.name}: {side.left_out} episodes have no partner" for side in sides if side.left_out]
    return tuple(found)
