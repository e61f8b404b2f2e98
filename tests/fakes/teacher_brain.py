"""A teacher behind the fake server: the careful agent, played without state from the request alone, and misbehaving on
purpose.

The task is known from the seed in the request, which depends on the task, the rollout and the turn. A reply to a
first attempt is spoilt with `rate`, one to a repeated attempt with `again`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.conversation.protocols import AgentTurn, Stage
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.scenario import Task

KINDS = ("malformed", "unknown_tool", "wrong_arguments", "empty", "refusal", "written_call")
MOST_TURNS = 24
ATTEMPTS = 3


class TeacherBrain:
    """Serves "fake-teacher" for the tasks given."""

    models = ("fake-teacher",)

    def __init__(
        self,
        tasks: Iterable[tuple[Domain, Task]],
        seed: int = 1,
        rate: float = 0.0,
        again: float = 0.0,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.rate, self.again, self.kinds = rate, again, tuple(kinds)
        self.spoilt: dict[str, int] = {}
        self._known: dict[int, tuple[Domain, Task, int, int]] = {}
        for domain, task in tasks:
            own = derive_seed(seed, 0, task.task_hash, 0)
            for turn in range(MOST_TURNS):
                for attempt in range(ATTEMPTS):
                    parts = (own, "agent", turn, *([attempt] if attempt else []))
                    self._known[derive_seed(*parts) % (1 << 31)] = (domain, task, own, attempt)

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        domain, task, own, attempt = self._known[body["seed"]]
        rng = random.Random(f"spoil {body['seed']}")
        good = _message(_turn(domain, task, own, body["messages"]))
        if rng.random() >= (self.again if attempt else self.rate):
            return good
        kind = rng.choice(self.kinds)
        self.spoilt[kind] = self.spoilt.get(kind, 0) + 1
        return _spoilt(kind, domain)


def _turn(domain: Domain, task: Task, seed: int, messages: Sequence[Mapping[str, Any]]) -> AgentTurn:
    """What the careful agent says after these messages."""
    stage = Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)
    agent = ScriptedAgents(domain.language, Manner.CAREFUL).open(stage, task)
    news: list[Event] = []
    names: dict[str, str] = {}
    begun = False
    for message in messages[1:]:
        if message["role"] == "assistant":
            names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls") or ()}
            if begun:
                _act(agent, news)
            news, begun = [], True
        elif message["role"] == "tool":
            text = message["content"]
            kind = Kind.ERROR if text.startswith("Error") else Kind.RESULT
            record = CallRecord(message["tool_call_id"], names[message["tool_call_id"]], ok=kind is Kind.RESULT)
            news.append(Event(0, Actor.WORLD, kind, text, record))
        elif not message["content"].startswith("[notice]"):
            news.append(Event(0, Actor.USER, Kind.SAY, message["content"]))
    return _act(agent, news)


def _act(agent: Any, news: list[Event]) -> AgentTurn:
    """The agent's turn; a scripted agent waits for nothing."""
    try:
        agent.act(news).send(None)
    except StopIteration as done:
        turn: AgentTurn = done.value
        return turn
    raise AssertionError("a scripted agent waits for nothing")


def _message(turn: AgentTurn) -> dict[str, Any]:
    if not turn.calls:
        return {"content": turn.text}
    call = turn.calls[0]
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"content": None, "tool_calls": [{"id": "c0", "type": "function", "function": function}]}


def _spoilt(kind: str, domain: Domain) -> dict[str, Any]:
    read = domain.tools[0].name
    bad = {
        "malformed": (read, '{"order_id": '),
        "unknown_tool": ("look_everywhere", "{}"),
        "wrong_arguments": (read, '{"nonsense": [1, 2]}'),
    }
    if kind in bad:
        name, arguments = bad[kind]
        call = {"id": "c0", "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"content": None, "tool_calls": [call]}
    words = {
        "empty": "",
        "refusal": "I'm sorry, but I can't assist with that request.",
        "written_call": f'<tool_call>{{"name": "{read}", "arguments": {{}}}}</tool_call>',
    }
    return {"content": words[kind]}
