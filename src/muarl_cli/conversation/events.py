"""Events: the append-only list that *is* an episode.

Invariant: everything that is scored, masked, counted or shown can be recomputed from this list alone. A `call` event
carries what the agent asked for; the `result` (or `error`) event with the same call id carries what the world answered,
the tool's class and the entities it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Actor(StrEnum):
    """Who did it."""

    AGENT = "agent"
    USER = "user"
    WORLD = "world"
    RUNNER = "runner"
    """the loop itself: the end of an episode, and nothing else"""


class Kind(StrEnum):
    """What was done."""

    SAY = "say"
    CALL = "call"
    RESULT = "result"
    ERROR = "error"
    """an error observation: the call was not executed, or the tool refused it"""
    END = "end"


class ToolClass(StrEnum):
    """What a tool may do to the state."""

    READ = "read"
    WRITE = "write"
    GENERIC = "generic"
    """neither reads nor writes the state: calculate, think"""
    TERMINAL = "terminal"
    """ends the conversation: a hand-over to a human"""


@dataclass(frozen=True, slots=True)
class Write:
    """One entity that a call changed, and whose it is ("" where nobody owns it)."""

    entity: str
    id: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """The tool call an event is about. `klass` is written as "class" in the log."""

    id: str
    name: str
    arguments: Mapping[str, Any] | None = None
    """parsed arguments; None where they could not be parsed (the raw text is then the event's text)"""
    klass: ToolClass | None = None
    """None for an unknown tool"""
    ok: bool | None = None
    """None on a `call` event; set on `result` and `error` events"""
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing one party did. `tags` name what cannot be read off the rest: "greeting" (said for the agent by the
    scenario), "beside_calls" (agent text in a turn that also calls tools: the user never hears it), "cut" (the turn hit
    its token limit), "same_turn" (a call made in the same agent turn as the call before it), "tool:NAME" (from this
    user turn on the agent is offered that tool as well), "inject:NAME"."""

    i: int
    actor: Actor
    kind: Kind
    text: str = ""
    call: CallRecord | None = None
    tags: tuple[str, ...] = field(default=())
    thought: str = ""
    """what the agent thought before this turn, on the turn's first event; no other party is shown it and no score reads
    it"""

    def heard_by_user(self) -> bool:
        """Whether the user hears this event: words said by the agent outside of tool turns."""
        return self.actor is Actor.AGENT and self.kind is Kind.SAY and "beside_calls" not in self.tags
