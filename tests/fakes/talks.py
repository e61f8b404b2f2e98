"""Parties that play given turns, and conversations between real scripted ones: what several tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.events import Event, ToolClass, Write
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import AgentTurn, Stage, TokenRow, ToolResult, UserTurn
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.users.agenda import AgendaUser, AgendaUsers
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


Turn = TypeVar("Turn")


class _Plays(Generic[Turn]):
    """Plays the given turns (the last one for ever) and keeps the news of each; a turn that is an exception is
    raised."""

    def __init__(self, *turns: Turn | Exception) -> None:
        self.turns, self.news, self.at = turns, list[list[Event]](), 0

    def _next(self, news: Sequence[Event]) -> Turn:
        self.news.append(list(news))
        turn = self.turns[min(self.at, len(self.turns) - 1)]
        self.at += 1
        if isinstance(turn, Exception):
            raise turn
        return turn

    def close(self) -> None:
        return None


class AgentOf(_Plays[AgentTurn]):
    """An agent that plays the given turns."""

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        return self._next(news)

    def rows(self) -> tuple[TokenRow, ...]:
        return ()


class UserOf(_Plays[UserTurn]):
    """A user that plays the given turns."""

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        return self._next(news)


def spec(name: str, klass: ToolClass = ToolClass.WRITE, **properties: Mapping[str, Any]) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return ToolSpec(name, f"does {name}", schema, klass)


class WorldOf:
    """A world that logs what it executes; `crash` names a tool that raises, `hang` one that never answers."""

    tools = (
        spec("put", number={"type": "integer"}),
        spec("look", ToolClass.READ),
        spec("refuse"),
        spec("crash"),
        spec("hang"),
        spec("hand_over", ToolClass.TERMINAL),
    )
    user_tools = (spec("phone_restart"),)

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        self.calls.append((requestor, call.name, dict(call.arguments)))
        if call.name == "crash":
            raise KeyError("a bug in the tool")
        if call.name == "hang":
            await asyncio.Event().wait()
        if call.name == "refuse":
            return ToolResult("Error: no", ok=False)
        return ToolResult(f"{call.name} ok", True, (Write("box", "1"),) if call.name == "put" else ())

    def fingerprint(self) -> str:
        return str(len(self.calls))

    def close(self) -> None:
        return None


def call(name: str, id_number: int = 0, /, **arguments: Any) -> ToolCall:
    return ToolCall(f"c{id_number}", name, arguments)


async def hold(
    agent: Any, user: Any, world: Any, limits: Limits = LIMITS, greeting: str = "hi", **more: Any
) -> Transcript:
    return await converse(agent, user, world, greeting=greeting, limits=limits, **more)


def stage_of(domain: Domain, seed: int) -> Stage:
    return Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)


async def play(
    domain: Domain, task: Task, agent: Manner | Callable[[AgendaUser], Any], seed: int = 0, limits: Limits = LIMITS
) -> tuple[Transcript, float, AgendaUser]:
    """One episode of `task` with the agenda user: (transcript, reward, the user as it ended)."""
    stage = stage_of(domain, seed)
    user, world = AgendaUsers(domain.language).open(stage, task), domain.world(task)
    opened: Any = ScriptedAgents(domain.language, agent).open(stage, task) if isinstance(agent, Manner) else agent(user)
    transcript = await hold(opened, user, world, limits, domain.greeting)
    graded = transcript.end.reason.graded
    return transcript, domain.outcome(task, world, transcript.events).reward if graded else 0.0, user
