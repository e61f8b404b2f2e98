"""A model that is shown the whole conversation anew at every turn, as one prompt: how some benchmarks do it.

Each turn is a session of its own with the wrapped agent. Invariant: what the model sees depends on the events and on
its own earlier words alone; token rows are one a turn, since history is rewritten between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentFactory, AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.hashing import derive_seed

Prompt = Callable[[Any, Sequence[Event]], tuple[str, str] | None]
"""(task, what the agent knows) -> (system prompt, user message); None = nothing special. What it knows are the others'
events and its own turns as it wrote them, one `say` event each, whatever was read in it."""


class FreshAgents:
    """Opens sessions that ask `prompt` at every turn; a task for which it has nothing to say is left to `inner`."""

    def __init__(self, inner: AgentFactory, prompt: Prompt) -> None:
        self.inner, self._prompt = inner, prompt

    @property
    def info(self) -> Mapping[str, Any]:
        return self.inner.info

    def open(self, stage: Stage, task: Any) -> AgentSession:
        if self._prompt(task, ()) is None:
            return self.inner.open(stage, task)
        return _FreshSession(self.inner, stage, task, self._prompt)


class _FreshSession:
    def __init__(self, inner: AgentFactory, stage: Stage, task: Any, prompt: Prompt) -> None:
        self._inner, self._stage, self._task, self._prompt = inner, stage, task, prompt
        self._events: list[Event] = []
        self._turns = 0
        self._rows: list[TokenRow] = []

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        self._events += [event for event in news if event.actor is not Actor.AGENT]
        system, words = self._prompt(self._task, self._events) or ("", "")
        seed = derive_seed(self._stage.seed, "fresh", self._turns)
        self._turns += 1
        stage = replace(self._stage, policy=system, tools=(), greeting="", seed=seed)
        session = self._inner.open(stage, self._task)
        try:
            turn = await session.act([Event(0, Actor.USER, Kind.SAY, words)])
            self._rows += session.rows()
        finally:
            session.close()
        self._events.append(Event(len(self._events), Actor.AGENT, Kind.SAY, turn.text))
        return turn

    def rows(self) -> tuple[TokenRow, ...]:
        return tuple(self._rows)

    def close(self) -> None:
        self._events.clear()
