"""Advantages: what an episode was worth beside its siblings, the other episodes of the same task.

Invariant: an invalid episode (the user, a tool or the network failed) moves nothing: neither the mean, nor the spread,
nor a sibling's advantage. Whether a group teaches anything is decided on the raw outcome with a tolerance, so that the
rounding noise of equal rewards is never divided by itself. Sums are exact (`math.fsum`): the order of siblings does not
matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SAME_OUTCOME = 1e-6
"""rewards closer than this (relative above 1) are one outcome"""
STD_FLOOR = 1e-6
"""added to the standard deviation, as in verl"""


class Method(StrEnum):
    """How rewards become advantages."""

    MEAN = "mean"
    """reward minus the mean of the group"""
    MEAN_STD = "mean_std"
    """that over the standard deviation (ddof 1) plus 1e-6: the paper's (verl 0.9.1)"""
    BATCH = "batch"
    """reward minus the mean of the group, over the standard deviation of all valid rewards of the batch (ddof 1; TRL
    1.16.0 `scale_rewards="batch"`)"""
    LOO = "loo"
    """reward minus the mean of the others"""


@dataclass(frozen=True)
class GroupAdvantage:
    """One number an episode (0.0 for invalid ones, and for all of a group that is dropped)."""

    advantages: tuple[float, ...]
    kept: bool
    why: str
    """"" | "too_few_valid" | "no_spread" """


def group_advantages(
    rewards: Sequence[float | None], method: Method | str, batch_deviation: float | None = None
) -> GroupAdvantage:
    """Advantages of one group of G episodes; None marks an invalid one.

    A group with fewer than max(2, G/2) valid episodes is dropped, and so is one whose valid rewards are all the same.
    `batch_deviation` is what the method `batch` divides by (`deviation` of all valid rewards of the batch). Raises
    ValueError for a reward that is not finite: a missing reward is None, never 0.
    """
    valid = [float(r) for r in rewards if r is not None]
    if not all(map(math.isfinite, valid)):
        raise ValueError(f"rewards must be finite numbers, or None for invalid episodes: {list(rewards)}")
    if len(valid) < max(2, len(rewards) / 2):
        return _dropped(rewards, "too_few_valid")
    if max(valid) - min(valid) <= SAME_OUTCOME * max(1.0, *map(abs, valid)):
        return _dropped(rewards, "no_spread")
    count = len(valid)
    mean = math.fsum(valid) / count
    match Method(method):
        case Method.MEAN:
            scale = 1.0
        case Method.MEAN_STD:
            scale = 1.0 / (deviation(valid) + STD_FLOOR)
        case Method.BATCH:
            if batch_deviation is None:
                raise ValueError("the method batch divides by the batch's standard deviation: give it")
            scale = 1.0 / (batch_deviation + STD_FLOOR)
        case Method.LOO:
            # r - (sum - r) / (n - 1) is the distance to the mean times n / (n - 1).
            scale = count / (count - 1)
    return GroupAdvantage(tuple(0.0 if r is None else (r - mean) * scale for r in rewards), True, "")


def deviation(rewards: Sequence[float]) -> float:
    """Standard deviation with ddof 1; 0.0 for fewer than two rewards."""
    if len(rewards) < 2:
        return 0.0
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))


def turn_advantages(rewards: Sequence[Sequence[float] | None], method: Method | str) -> tuple[tuple[float, ...], ...]:
    """Advantages of one group by turn: what came after a turn, minus what was to be expected there.

    `rewards[i][k]` is what episode i earned in its agent turn k, None an invalid episode (its advantages are empty).
    The return of a turn is the sum of the rewards from it on. The expectation is the mean of the siblings' returns at
    the same turn (their last one where they were shorter), the episode itself left out for `loo`, left in for `mean`;
    either way it does not depend on what the turn did (left in, up to the factor (n - 1)/n, as for whole episodes),
    which dividing by a turn's own spread or subtracting the mean over turns would. Rewards that come at the end only
    give every turn the advantage of the episode. Raises ValueError for other methods, for an episode without turns and
    for numbers that are not finite.
    """
    if Method(method) not in (Method.MEAN, Method.LOO):
        raise ValueError(f"credit by turn knows mean and loo, not {method}")
    valid = [each for each in rewards if each is not None]
    if not all(each and all(map(math.isfinite, each)) for each in valid):
        raise ValueError(f"every valid episode has turns, with finite rewards: {list(rewards)}")
    returns = [[math.fsum(each[k:]) for k in range(len(each))] for each in valid]
    count, scale = len(valid), len(valid) / (len(valid) - 1) if Method(method) is Method.LOO else 1.0
    longest = max(map(len, returns), default=0)
    expected = [math.fsum(each[min(k, len(each) - 1)] for each in returns) / count for k in range(longest)]
    found = iter([tuple((value - expected[k]) * scale for k, value in enumerate(each)) for each in returns])
    return tuple(next(found) if each is not None else () for each in rewards)


def _dropped(rewards: Sequence[float | None], why: str) -> GroupAdvantage:
    return GroupAdvantage((0.0,) * len(rewards), False, why)
