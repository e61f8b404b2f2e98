"""What a judge said about one failed conversation: whose error decided it, as data.

Invariant: an answer that cannot be read is `UNREAD`; it is never taken for one of the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum


class AtFault(StrEnum):
    """Who made the first decisive error."""

    USER = "user"
    AGENT = "agent"
    NEITHER = "neither"
    UNREAD = "unread"
    """the judge gave no answer that can be read"""


@dataclass(frozen=True)
class Blame:
    """The judgement of one failed episode."""

    at_fault: AtFault
    error: str = ""
    """the judge's name for the user's error"""
    event: int = -1


def read_blame(text: str) -> Blame:
    """The answer: the one JSON object in it; `UNREAD` for none, several, or one that says something else."""
    start, end = text.find("{"), text.rfind("}")
    try:
        row = json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or row.get("at_fault") not in (AtFault.USER, AtFault.AGENT, AtFault.NEITHER):
        return Blame(AtFault.UNREAD)
    event = row.get("event")
    number = event if isinstance(event, int) else -1
    return Blame(AtFault(row["at_fault"]), str(row.get("error") or "")[:40], number)
