"""Goals: what a user wants, as data that a scripted user can play and a scripted agent can serve.

A brief is a list of goals. The end state that counts is the one after the user's last change of mind, so a goal's
*final* values are its first ones with the change applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """A scheduled change of mind: voiced when the agent first proposes the goal, or when it is told that it was
    done."""

    slot: str
    value: Any


@dataclass(frozen=True)
class Goal:
    """One request of a user."""

    intent: str
    slots: Mapping[str, Any]
    """first values"""
    tell_first: tuple[str, ...]
    """slots told with the opening; the rest is told when asked"""
    unknown: Mapping[str, str]
    """slots the user does not know, with what they know instead"""
    change: Change | None
    refused: str
    """why the domain must say no ("" where it can be done)"""

    @property
    def final(self) -> dict[str, Any]:
        values = dict(self.slots)
        if self.change:
            values[self.change.slot] = self.change.value
        return values

    def to_json(self) -> dict[str, Any]:
        return {
            "intent": self.intent,
            "slots": dict(self.slots),
            "tell_first": list(self.tell_first),
            "unknown": dict(self.unknown),
            "change": {"slot": self.change.slot, "value": self.change.value} if self.change else None,
            "refused": self.refused,
        }


def goal_from(row: Mapping[str, Any]) -> Goal:
    change = row["change"]
    return Goal(
        row["intent"],
        dict(row["slots"]),
        tuple(row["tell_first"]),
        dict(row["unknown"]),
        Change(change["slot"], change["value"]) if change else None,
        row["refused"],
    )


def goals_of(brief: Mapping[str, Any]) -> tuple[Goal, ...]:
    """The goals of a task's brief."""
    return tuple(goal_from(row) for row in brief["goals"])
