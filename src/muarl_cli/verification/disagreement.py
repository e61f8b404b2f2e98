"""How often a model that plays the tools says something else than the tools would have said.

Each simulated answer is compared with that of the executable tool for the same call after the same calls before it;
two refusals agree whatever their words, two answers where they mean the same value. The rate is a ratio over calls,
its interval a bootstrap over conversations, since the calls of one conversation resemble each other. Invariant: the
comparison is made from the log alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.hashing import canonical_json
from muarl_cli.scoring.statistics import LEVEL, zero_events_upper_bound
from muarl_cli.verification.subject import Subject
from muarl_cli.worlds.memory import SIMULATED

RESAMPLES = 2000
SEED = 1


@dataclass(frozen=True)
class Rate:
    """Events in calls, with the interval of their share."""

    events: int
    calls: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.events / self.calls if self.calls else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"events": self.events, "calls": self.calls, "share": self.share, "low": self.low, "high": self.high}


def compared(subject: Subject) -> tuple[int, int] | None:
    """(answers that differ, answers compared) of one episode; None where nothing was simulated or can be compared."""
    if not subject.simulated or subject.replayed is None:
        return None
    pairs = [(step, real) for step, real in subject.replayed.steps if SIMULATED in step.tags and real is not None]
    return sum(not same((bool(s.ok), s.text), (r.ok, r.text)) for s, r in pairs), len(pairs)


def same(one: tuple[bool, str], other: tuple[bool, str]) -> bool:
    """Whether two answers, each (went through, text), say the same."""
    if one[0] != other[0]:
        return False
    return not one[0] or _meaning(one[1]) == _meaning(other[1])


def _meaning(text: str) -> str:
    try:
        return canonical_json(json.loads(text))
    except (ValueError, TypeError):
        return " ".join(text.lower().split()).rstrip(".")


def rate(counts: Sequence[tuple[int, int]]) -> Rate:
    """The rate over conversations, each (events, calls). An interval of a rate of 0 or 1 is the exact one for "not once
    in n conversations"."""
    import numpy as np

    events, calls = sum(e for e, _ in counts), sum(n for _, n in counts)
    if not calls:
        return Rate(0, 0, 0.0, 1.0)
    if events in (0, calls):
        doubt = zero_events_upper_bound(len(counts), (1 + LEVEL) / 2)
        return Rate(events, calls, 0.0 if not events else 1 - doubt, doubt if not events else 1.0)
    rows = np.asarray(sorted(counts), dtype=float)
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(0, len(rows), (RESAMPLES, len(rows)))
    sums = rows[drawn].sum(axis=1)
    shares = sums[:, 0] / np.maximum(sums[:, 1], 1)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Rate(events, calls, float(low), float(high))
