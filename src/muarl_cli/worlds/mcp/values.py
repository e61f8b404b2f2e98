"""Goals of a server file: each slot has a list of values, and a task takes one of each.

The same three functions as the `goals.py` of a built-in scenario has, over lists instead of a state. Invariant: nothing
is refused here, since a list of values knows no rule; what must be refused needs a scenario with code.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any


class ListedValues:
    """What the task generator asks of a domain, from the `values` and `subject` of a server file."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._values: Mapping[str, Sequence[Any]] = data["values"]
        self._subject: str = data["subject"]
        self._slots: Mapping[str, Sequence[str]] = {name: row["slots"] for name, row in data["intents"].items()}
        needed = {slot for slots in self._slots.values() for slot in slots}
        if missing := sorted(needed - set(self._values)):
            raise ValueError(f"no values for {missing[0]}")
        if derived := [name for name, row in data["intents"].items() if row.get("derived") or "refuse" in row]:
            raise ValueError(f"intent {derived[0]}: `derived` and `refuse` need a scenario with code")

    def state(self, seed: int) -> dict[str, Any]:
        """There is none: the server's own seed is the state."""
        return {}

    def subjects(self, tables: Mapping[str, Any]) -> list[str]:
        return [str(value) for value in self._values[self._subject]]

    def draw(
        self,
        rng: random.Random,
        intent: str,
        subject: str,
        tables: Mapping[str, Any],
        wish: str,
        used: Mapping[str, Any],
    ) -> tuple[dict[str, Any], str, dict[str, str]] | None:
        """Values for an intent about this subject; None for what would have to be refused, or where one list has
        nothing but what the task's earlier goal uses."""
        slots: dict[str, Any] = {}
        for slot in self._slots[intent]:
            free = [value for value in self._values[slot] if value != used.get(slot)]
            if slot != self._subject and not free:
                return None
            slots[slot] = subject if slot == self._subject else rng.choice(free)
        return None if wish == "refused" else (slots, "", {})

    def other_value(self, rng: random.Random, slot: str, value: Any) -> Any:
        return rng.choice([other for other in self._values[slot] if other != value])
