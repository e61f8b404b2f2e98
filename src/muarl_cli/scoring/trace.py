"""An event list as the rules read it: the agent's calls with their answers, what was said, and whose turn it was.

Invariant: nothing here looks at anything but the events, so that every verdict can be computed again from the log
alone. A write counts as *effective* where the world says that it changed something, also if the answer was an error
(a connection that broke after the work was done).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass, Write
from muarl_cli.hashing import canonical_json
from muarl_cli.worlds.memory import leaves as leaves

INJECT, GUARD = "inject:", "guard:"
"""tags on an answer: a fault that was injected on purpose; a write that was refused at run time by a rule"""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the agent and what the world answered (`ok` None where the conversation ended before)."""

    at: int
    name: str
    klass: ToolClass | None
    arguments: Mapping[str, Any]
    key: str
    """equal for equal calls"""
    same_turn: bool
    answer_at: int = -1
    ok: bool | None = None
    text: str = ""
    writes: tuple[Write, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def effective(self) -> bool:
        """A write that took effect."""
        return self.klass is ToolClass.WRITE and bool(self.ok or self.writes)

    @property
    def injected(self) -> str:
        """The injector that spoilt the answer, "" for none."""
        return next((tag.removeprefix(INJECT) for tag in self.tags if tag.startswith(INJECT)), "")


@dataclass(frozen=True, slots=True)
class Line:
    """Words of the agent that the user heard, or of the user."""

    at: int
    text: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode, read once."""

    steps: tuple[Step, ...]
    agent: tuple[Line, ...]
    """without the greeting, which is the scenario's"""
    user: tuple[Line, ...]
    beside: tuple[Line, ...]
    """agent words in a turn that also calls tools"""
    length: int

    @property
    def writes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.effective)

    def user_between(self, start: int, end: int) -> list[Line]:
        return [line for line in self.user if start < line.at < end]

    def agent_between(self, start: int, end: int) -> list[Line]:
        return [line for line in self.agent if start < line.at < end]


def read(events: Sequence[Event]) -> Trace:
    """The trace of an event list. Call ids may come again; an answer belongs to the latest open call of its id."""
    steps: list[Step] = []
    agent: list[Line] = []
    user: list[Line] = []
    beside: list[Line] = []
    open_calls: dict[str, int] = {}
    for event in events:
        call = event.call
        if event.kind is Kind.SAY:
            line = Line(event.i, event.text, event.tags)
            if event.actor is Actor.USER:
                user.append(line)
            elif "beside_calls" in event.tags:
                beside.append(line)
            elif "greeting" not in event.tags:
                agent.append(line)
        elif event.kind is Kind.CALL and call is not None:
            open_calls.pop(call.id, None)
            if event.actor is Actor.AGENT:
                open_calls[call.id] = len(steps)
                key = canonical_json([call.name, event.text if call.arguments is None else call.arguments])
                same = "same_turn" in event.tags
                steps.append(Step(event.i, call.name, call.klass, call.arguments or {}, key, same))
        elif event.actor is Actor.WORLD and call is not None and call.id in open_calls:
            place = open_calls.pop(call.id)
            s = steps[place]
            steps[place] = Step(
                s.at, s.name, s.klass, s.arguments, s.key, s.same_turn,
                event.i, bool(call.ok), event.text, call.writes, event.tags,
            )  # fmt: skip
    return Trace(tuple(steps), tuple(agent), tuple(user), tuple(beside), len(events))


def at_path(arguments: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    value: Any = arguments
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
