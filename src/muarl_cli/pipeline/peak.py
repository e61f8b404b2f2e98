"""The checkpoint of a training run around which the agent earned most, so that a run that goes wrong later keeps it.

A checkpoint's figure is the mean reward of the steps since the one before it. They were held by the weights on the way
to it, and on other tasks than the next ones: a figure to keep a checkpoint by, not to report. Invariant: it depends on
the metrics and on the steps that were saved alone, so a resumed run marks what a straight one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Peak:
    """`place` is (step, mean reward) of the highest checkpoint so far; `saved` the step of the last one."""

    def __init__(self, saved: int = 0, place: Sequence[Any] | None = None) -> None:
        self._saved = saved
        self.place = tuple(place) if place else None

    def passed(self, history: Sequence[Mapping[str, Any]], step: int) -> bool:
        """Whether the checkpoint that is now made of `step` is the highest; `history` holds the metrics of each step up
        to it. Of equal ones the later one is."""
        earned = [row["reward"] for row in history[-(step - self._saved) :]]
        self._saved = step
        mean = round(sum(earned) / max(1, len(earned)), 6)
        if self.place is not None and mean < self.place[1]:
            return False
        self.place = (step, mean)
        return True
