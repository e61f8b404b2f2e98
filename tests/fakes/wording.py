"""Brains for the fake server that word an agenda's turns: faithfully, or with a planted fault."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

LEADS = ("", "Hm, ", "Well, ", "So, ")


def plan_of(body: Mapping[str, Any]) -> str:
    """What the prompt says is to be conveyed."""
    found = re.search(
        r"Say now: (.*?)(?:\n\nYour last try|\nYour last message|\Z)", body["messages"][0]["content"], re.S
    )
    assert found, body["messages"][0]["content"]
    return found.group(1).strip()


class Rewords:
    """Says each turn in slightly other words, the same for the same request: a paraphrase that keeps every fact."""

    models = ("m", "other")

    def __init__(self) -> None:
        self.served = 0

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.served += 1
        plan = plan_of(body)
        lead = LEADS[hashlib.sha256(repr(body["messages"]).encode()).digest()[0] % len(LEADS)]
        words = plan.replace("i want", "I would like").replace("please", "kindly")
        return {"content": lead + words}


class Plants(Rewords):
    """Rewords, but for the n-th request (and all further tries of it, where `always`) says what `fault` makes of it."""

    def __init__(self, fault: Callable[[str], str], at: int, tries: int = 1) -> None:
        super().__init__()
        self._fault, self._at, self._tries = fault, at, tries

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        number = self.served
        said = super().message(body)
        if self._at <= number < self._at + self._tries:
            return {"content": self._fault(plan_of(body))}
        return said
