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
    """that over the standard deviation (ddof 1) plus 1e-6: the paper's"""
    LOO = "loo"
    """reward minus the mean of the others"""


@dataclass(frozen=True)
class GroupAdvantage:
    """One number an episode (0.0 for invalid ones, and for all of a group that is dropped)."""

    advantages: tuple[float, ...]
    kept: bool
    why: str
    """"" | "too_few_valid" | "no_spread" """


def group_advantages(rewards: Sequence[float | None], method: Method | str) -> GroupAdvantage:
    """Advantages of one group of G episodes; None marks an invalid one.

    A group with fewer than max(2, G/2) valid episodes is dropped, and so is one whose valid rewards are all the same.
    Raises ValueError for a reward that is not finite: a missing reward is None, never 0.
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
            deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in valid) / (count - 1))
            scale = 1.0 / (deviation + STD_FLOOR)
        case Method.LOO:
            # r - (sum - r) / (n - 1) is the distance to the mean times n / (n - 1).
            scale = count / (count - 1)
    return GroupAdvantage(tuple(0.0 if r is None else (r - mean) * scale for r in rewards), True, "")


def _dropped(rewards: Sequence[float | None], why: str) -> GroupAdvantage:
    return GroupAdvantage((0.0,) * len(rewards), False, why)
