"""What a run is doing at this moment, for whoever watches it.

Invariant: watching costs the conversations nothing but a count of their turns. Tokens, calls in flight and money are
asked of the connections and the engine when somebody looks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind

WINDOW = 10.0
"""seconds over which tokens a second are counted"""


class Meter:
    """The figures of a run. `wires` are its connections, which may come up later; `engine` draws turns in this process.

    Turns are those that the limits count: messages of users and calls of agents. Tokens are drawn ones, of all served
    models and of the engine.
    """

    def __init__(self, wires: Callable[[], Iterable[Any]], engine: Any = None) -> None:
        self._wires, self._stats = wires, getattr(engine, "stats", {})
        self.turns = 0
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), self._tokens())])

    def saw(self, event: Event) -> None:
        """An event happened."""
        self.turns += (event.actor, event.kind) in ((Actor.USER, Kind.SAY), (Actor.AGENT, Kind.CALL))

    def figures(self) -> dict[str, Any]:
        """By name, what is to be shown; money only where calls are paid for."""
        wires = list(self._wires())
        found: dict[str, Any] = {"turns": self.turns}
        if wires or self._stats:
            found["tokens/s"] = round(self._rate())
        if wires:
            found["in flight"] = sum({id(w.limiter): w.limiter.in_flight for w in wires}.values())
        ledgers = {wire.ledger.path: wire.ledger for wire in wires if wire.ledger is not None}
        if ledgers:
            found["USD"] = round(sum(sum(ledger.spent()) for ledger in ledgers.values()), 4)
        return found

    def _tokens(self) -> int:
        return int(self._stats.get("sampled_tokens", 0)) + sum(wire.drawn_tokens for wire in self._wires())

    def _rate(self) -> float:
        now = time.monotonic()
        self._marks.append((now, self._tokens()))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()
        (then, before), (_, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(now - then, 1e-6)
