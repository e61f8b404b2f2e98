"""A scripted agent that copes with failing tools: tries again, looks before it repeats a write, says when it may not.

It stands between the loop and a scripted agent and lets everything pass that is no fault. Invariants: with tools that
work, every turn is the inner agent's own; a write whose fate is unknown is never sent again without a look first.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from muarl_cli.agents.scripted import ScriptedAgent, ScriptedAgents
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.protocols import AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.worlds.scenario import Task


class Trouble(StrEnum):
    """What an answer looks like."""

    NONE = "none"
    AGAIN = "again"
    """not carried out, or no readable answer: the same call may be made again"""
    UNKNOWN = "unknown"
    """a write that may have been carried out"""
    DENIED = "denied"


def trouble(answer: Event) -> Trouble:
    """Read off the text, as a model would have to."""
    text = answer.text.strip()
    if answer.kind is Kind.ERROR:
        for start, kind in (
            ("Error 503", Trouble.AGAIN),
            ("Error 504", Trouble.UNKNOWN),
            ("Error 403", Trouble.DENIED),
        ):
            if text.startswith(start):
                return kind
        return Trouble.NONE
    odd = not text or text.startswith("<") or (text[0] in "[{" and not _parses(text))
    reads = answer.call is not None and answer.call.klass is ToolClass.READ
    return Trouble.AGAIN if reads and odd else Trouble.NONE


def _parses(text: str) -> bool:
    """Whether it is a whole value, in JSON or as Python writes it (some servers answer so)."""
    try:
        json.JSONDecoder().raw_decode(text)
    except ValueError:
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
    return True


class Recovering:
    """A session around a scripted agent's."""

    def __init__(self, inner: ScriptedAgent) -> None:
        self.inner = inner
        self.last: ToolCall | None = None
        """the call whose answer is awaited"""
        self.look: ToolCall | None = None
        """the last read that was answered, and its answer"""
        self.seen = ""
        self.doubtful: ToolCall | None = None
        """a write whose fate is unknown"""
        self.repeats = 0

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        answer = next((e for e in reversed(news) if e.actor is Actor.WORLD and e.call is not None), None)
        if self.last is None or answer is None:
            return await self._pass(news)
        match trouble(answer):
            case Trouble.AGAIN:
                return self._repeat(self.last)
            case Trouble.DENIED:
                return self._refused()
            case Trouble.UNKNOWN if self.look is not None:
                self.doubtful = self.last
                return self._repeat(self.look)
        if self.doubtful is not None:
            return await self._settle(self.doubtful, answer)
        if answer.kind is Kind.RESULT and answer.call is not None and answer.call.klass is ToolClass.READ:
            self.look, self.seen = self.last, answer.text
        return await self._pass(news)

    async def _settle(self, write: ToolCall, answer: Event) -> AgentTurn:
        """After the look: done where it shows; else the write again, and a refusal then says that it had been done."""
        if self.last is not None and self.last.name != write.name and answer.text == self.seen:
            return self._repeat(write)
        self.doubtful = None
        assert answer.call is not None
        done = replace(answer, kind=Kind.RESULT, text="ok", call=replace(answer.call, name=write.name, ok=True))
        return await self._pass([done])

    async def _pass(self, news: Sequence[Event]) -> AgentTurn:
        turn = await self.inner.act(news)
        self.last = turn.calls[-1] if turn.calls else None
        return turn

    def _repeat(self, call: ToolCall) -> AgentTurn:
        self.repeats += 1
        self.last = replace(call, id=f"again_{self.repeats - 1}")
        return AgentTurn(calls=(self.last,))

    def _refused(self) -> AgentTurn:
        self.last = self.doubtful = None
        return self.inner.give_up()

    def rows(self) -> tuple[TokenRow, ...]:
        return self.inner.rows()

    def close(self) -> None:
        self.inner.close()


class RecoveringAgents:
    """Opens scripted agents that cope with failing tools."""

    def __init__(self, agents: ScriptedAgents) -> None:
        self.agents = agents

    @property
    def info(self) -> Mapping[str, Any]:
        return self.agents.info

    def open(self, stage: Stage, task: Task) -> Recovering:
        return Recovering(self.agents.open(stage, task))
