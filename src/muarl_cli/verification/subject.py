"""What a filter looks at, and what it says.

A `Subject` is one episode beside its scenario and its task, with what was said and read so far computed once. A filter
answers with `Reason`s, and an empty answer is a pass. Invariant: a reason names its filter, a code that can be counted
(a rule's id, a kind of damage), what is wrong in words, and the event that shows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.scoring.findings import Layered
from muarl_cli.scoring.layers import judge
from muarl_cli.scoring.trace import Trace, read
from muarl_cli.worlds.memory import SIMULATED
from muarl_cli.worlds.scenario import Task

if TYPE_CHECKING:
    from muarl_cli.verification.replay import Replayed


class Filter(StrEnum):
    """The filters, the cheapest first."""

    ENDED = "ended"
    """the conversation counts: no fault ended it"""
    STATE = "state"
    """the end state equals the gold one, also where the logged calls are carried out again"""
    REPLAY = "replay"
    """the tools answer as the log says"""
    RULES = "rules"
    """the rules of the scenario were obeyed"""
    ANSWERED = "answered"
    """each call has one answer, and each answer a call"""
    LEAK = "leak"
    """nobody recites the user's instruction, and the agent knows nothing that stands only there"""
    VALUES = "values"
    """every id, price and date of the agent was said by the user or read from a tool"""
    LANGUAGE = "language"
    """the agent speaks the language of the conversation"""
    FORM = "form"
    """well-formed calls, messages without markup and without the boilerplate of a model"""
    LENGTH = "length"
    """no message is a lecture"""
    DUPLICATE = "duplicate"
    """nearly the same was accepted before"""
    JUDGES = "judges"
    """a committee of models votes for it"""
    PERSON = "person"
    """a person who looked at it accepts it"""


@dataclass(frozen=True)
class Reason:
    """Why a filter says no. `at` is the event that shows it, None where it is the whole episode."""

    filter: Filter
    code: str
    why: str
    at: int | None = None

    @property
    def key(self) -> str:
        """What is counted: `rules/confirm_before_write`."""
        return f"{self.filter.value}/{self.code}"

    def __str__(self) -> str:
        where = "" if self.at is None else f" (event {self.at})"
        return f"{self.key}: {self.why}{where}"


@dataclass(frozen=True)
class Subject:
    """One episode before the filters. `task` is None where the scenario does not know it any more."""

    episode: Episode
    scenario: Any
    task: Task | None
    again: Replayed | None = None
    """the logged calls, where they were carried out again beside (on a server: that takes time, and is no function)"""

    @cached_property
    def trace(self) -> Trace:
        return read(self.episode.events)

    @cached_property
    def given(self) -> str:
        """What the agent knows before anybody speaks: policy, greeting, tools."""
        tools = json.dumps([tool.openai() for tool in self.scenario.tools], ensure_ascii=False)
        return f"{self.scenario.policy}\n{self.scenario.greeting}\n{tools}"

    @cached_property
    def simulated(self) -> bool:
        """Whether a model answered in place of the tools."""
        return any(SIMULATED in event.tags for event in self.episode.events)

    @cached_property
    def layered(self) -> Layered:
        """What the rules of the scenario find."""
        return judge(self.episode, self.scenario, self.task)

    @cached_property
    def replayed(self) -> Replayed | None:
        """The logged calls, carried out again; None where that is not possible."""
        from muarl_cli.verification.replay import carry_out

        return self.again or carry_out(self)

    def with_known(self) -> Iterator[tuple[Event, str]]:
        """Each event of the agent, and all that the user said and the tools answered before it."""
        known: list[str] = []
        for event in self.episode.events:
            if event.actor is Actor.AGENT:
                yield event, "\n".join(known)
            elif event.kind in (Kind.SAY, Kind.RESULT, Kind.ERROR):
                known.append(event.text)
