"""Agents that try to get by without serving anybody: random tools, every answer at once, yes to everything."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.agents.floors import plausible
from muarl_cli.agents.scripted import Manner, ScriptedAgents, Step
from muarl_cli.conversation.events import Actor, Event, ToolClass
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.scenario import Task

TURNS = 6
"""after so many turns the random agent says goodbye"""


class BadAgents:
    """Opens agents of one kind: "random-tool", "list-all", "say-yes"."""

    def __init__(self, domain: Domain, kind: str) -> None:
        self.domain, self.kind = domain, kind

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "model": self.kind, "revision": "", "weight_version": 0}

    def open(self, stage: Stage, task: Task) -> AgentSession:
        if self.kind == "list-all":
            careful = ScriptedAgents(self.domain.language, Manner.CAREFUL).open(stage, task)
            return ListAll(careful, options(self.domain))
        return {"random-tool": RandomTool, "say-yes": SayYes}[self.kind](self.domain, stage.seed)


def options(domain: Domain) -> str:
    """Every value that a choice of any tool allows, and numbers, in one sentence."""
    found: list[str] = []

    def walk(schema: Any) -> None:
        if isinstance(schema, Mapping):
            found.extend(str(value) for value in schema.get("enum", ()))
            for inner in schema.values():
                walk(inner)

    for tool in domain.tools:
        walk(tool.parameters)
    return ", ".join(dict.fromkeys([*found, *(str(n) for n in range(1, 13))]))


class _Session:
    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        return None


class RandomTool(_Session):
    """Calls any tool with the smallest arguments its schema takes, or with ids that the user said."""

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain, self.rng, self.turns = domain, random.Random(derive_seed(seed, "random-tool")), 0
        self.heard: list[str] = []

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        self.heard += [word.strip(".,?") for e in news if e.actor is Actor.USER for word in e.text.split()]
        self.turns += 1
        if self.turns > TURNS:
            return AgentTurn("goodbye!")
        tool = self.rng.choice([t for t in self.domain.tools if t.klass is not ToolClass.TERMINAL])
        arguments = plausible(tool.parameters)
        ids = [word for word in self.heard if word.isdigit()]
        given = {n: self.rng.choice(ids) if ids and n.endswith("_id") else value for n, value in arguments.items()}
        return AgentTurn(calls=(ToolCall(f"call_{self.turns}", tool.name, given),))


class ListAll(_Session):
    """Careful, but reports by naming every answer there could be."""

    def __init__(self, inner: Any, everything: str) -> None:
        self.inner, self.everything = inner, everything

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        written = self.inner.step is Step.WRITTEN
        turn: AgentTurn = await self.inner.act(news)
        return AgentTurn(f"it is one of {self.everything}. anything else?") if written and turn.text else turn


class SayYes(_Session):
    """Says yes, it has been done, whatever was asked for."""

    def __init__(self, domain: Domain, seed: int) -> None:
        return None

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        return AgentTurn("yes, of course. it has been done. anything else?")
