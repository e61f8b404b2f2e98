"""From an episode to its verdict: all cheap filters, then what costs money or time only for what they let pass.

Invariant: an episode is accepted where no filter has a reason against it, and a verdict says of every filter whether it
passed, failed, or was not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from muarl_cli.verification.filters import Check
from muarl_cli.verification.subject import Filter, Reason, Subject

PASS, FAIL, NOT_ASKED = "pass", "fail", "na"


@dataclass(frozen=True)
class Verified:
    """What the filters say of one episode: those that were asked, and their reasons."""

    asked: tuple[Filter, ...]
    reasons: tuple[Reason, ...]

    @property
    def accepted(self) -> bool:
        return not self.reasons

    def plus(self, asked: Filter, reasons: Iterable[Reason]) -> Verified:
        """With one more filter."""
        return Verified((*self.asked, asked), (*self.reasons, *reasons))

    def checks(self) -> dict[str, str]:
        """Filter to pass, fail or na (not asked)."""
        failed = {reason.filter for reason in self.reasons}
        return {f.value: FAIL if f in failed else PASS if f in self.asked else NOT_ASKED for f in Filter}

    def to_json(self) -> dict[str, Any]:
        """As it stands in `verdicts.jsonl` beside `layers`."""
        return {
            "accepted": self.accepted,
            "checks": self.checks(),
            "reasons": [str(reason) for reason in self.reasons],
            "codes": sorted({reason.key for reason in self.reasons}),
        }


def verify(subject: Subject, checks: Mapping[Filter, Check]) -> Verified:
    """The verdict of these filters. An episode that a fault ended is asked nothing further."""
    reasons: list[Reason] = []
    asked: list[Filter] = []
    for filter_, check in checks.items():
        asked.append(filter_)
        reasons += check(subject)
        if filter_ is Filter.ENDED and reasons:
            break
    return Verified(tuple(asked), tuple(reasons))
