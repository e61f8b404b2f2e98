"""Group-relative advantages over valid episodes.

Outcome and fault are different things: an invalid episode leaves the loss *and* its group's mean and spread, so the
fault of a user or a tool moves nobody's gradient. Rewards [1, 1, 0, 0] with the second one invalid give [2/3, out,
-1/3, -1/3]. A group whose valid outcomes are all alike says nothing and is dropped, and counted; so is one with too
few valid episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import TokenRow

SPREAD_TOLERANCE = 1e-6
"""outcomes closer than this are alike: float noise must not become an advantage"""


class Estimator(StrEnum):
    """What a reward is compared with."""

    MEAN = "mean"
    """r - mean of the valid siblings, itself included"""
    MEAN_STD = "mean_std"
    """(r - mean) / (sample deviation + 1e-6), as published"""
    LOO = "loo"
    """r - mean of the other valid siblings"""


class Verdict(StrEnum):
    """What became of a group."""

    KEPT = "kept"
    ALL_CORRECT = "all_correct"
    """no spread, and the outcome is above 0.5"""
    ALL_WRONG = "all_wrong"
    """no spread, and the outcome is not above 0.5"""
    TOO_FEW = "too_few"
    """fewer than max(2, half of the group) valid episodes"""


@dataclass(frozen=True)
class GroupAdvantages:
    """One entry an episode; None where the episode is out (invalid, or its group is dropped)."""

    values: tuple[float | None, ...]
    verdict: Verdict


def group_advantages(
    rewards: Sequence[float],
    valid: Sequence[bool],
    estimator: Estimator | str,
    outcomes: Sequence[float] | None = None,
) -> GroupAdvantages:
    """The advantages of one group. `rewards` of invalid episodes are not looked at.

    `outcomes` are the raw outcomes where rewards are shaped: a group counts as without spread by these.
    """
    raw = rewards if outcomes is None else outcomes
    inside = [index for index, ok in enumerate(valid) if ok]
    out: tuple[float | None, ...] = (None,) * len(rewards)
    if len(inside) < max(2, math.ceil(len(rewards) / 2)):
        return GroupAdvantages(out, Verdict.TOO_FEW)
    seen = [raw[index] for index in inside]
    if max(seen) - min(seen) <= SPREAD_TOLERANCE:
        return GroupAdvantages(out, Verdict.ALL_CORRECT if min(seen) > 0.5 else Verdict.ALL_WRONG)
    counted = [rewards[index] for index in inside]
    mean = math.fsum(counted) / len(counted)
    scale = 1.0
    if Estimator(estimator) is Estimator.MEAN_STD:
        scale = 1.0 / (math.sqrt(math.fsum((r - mean) ** 2 for r in counted) / (len(counted) - 1)) + 1e-6)
    elif Estimator(estimator) is Estimator.LOO:
        scale = len(counted) / (len(counted) - 1)
    values = tuple((rewards[i] - mean) * scale if ok else None for i, ok in enumerate(valid))
    return GroupAdvantages(values, Verdict.KEPT)


@dataclass(frozen=True)
class TrainingBatch:
    """What one update learns from, and what was left out and why."""

    rows: tuple[TokenRow, ...]
    advantages: tuple[float, ...]
    """one a row"""
    groups: dict[Verdict, int]
    """how many groups got which verdict"""

    def metrics(self) -> dict[str, float]:
        """Shares of the groups: {"groups", "groups_kept", "all_correct", "all_wrong", "too_few"}."""
        count = sum(self.groups.values())
        share = {verdict: self.groups[verdict] / count if count else 0.0 for verdict in Verdict}
        return {
            "groups": count,
            "groups_kept": self.groups[Verdict.KEPT],
            "all_correct": share[Verdict.ALL_CORRECT],
            "all_wrong": share[Verdict.ALL_WRONG],
            "too_few": share[Verdict.TOO_FEW],
        }


def training_batch(episodes: Sequence[Episode], estimator: Estimator | str) -> TrainingBatch:
    """Group episodes by `group_id`, give every valid one its advantage, and collect the token rows of kept groups.

    Rows come in the order of the episodes. All rows of an episode share its advantage.
    """
    groups: dict[str, list[int]] = {}
    for index, episode in enumerate(episodes):
        groups.setdefault(episode.group_id, []).append(index)
    verdicts = dict.fromkeys(Verdict, 0)
    advantage: dict[int, float] = {}  # by place: a refilled slot holds two attempts of the same id
    for places in groups.values():
        group = [episodes[place] for place in places]
        rewards = [episode.reward if episode.reward is not None else 0.0 for episode in group]
        found = group_advantages(rewards, [e.valid and e.reward is not None for e in group], estimator)
        verdicts[found.verdict] += 1
        advantage.update((p, value) for p, value in zip(places, found.values, strict=True) if value is not None)
    taken = [(row, advantage[p]) for p, e in enumerate(episodes) if p in advantage for row in e.rows]
    return TrainingBatch(tuple(row for row, _ in taken), tuple(value for _, value in taken), verdicts)
