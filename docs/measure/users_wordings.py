"""US-06 and US-08, with a noisy paraphrasing server where a language model would stand. Prints one JSON document.

    python docs/measure/users_wordings.py

`misses`: the share of agent turns that the scripted user does not understand, with the oracle's own wording and with
its turns reworded by the server. `scores` and `tau`: four agents of fixed policy under the scripted user and under one
that the server words (every twelfth reply may not be said), and whether both rank them alike: Kendall's tau over the
pairs that are apart in at least one ranking. Both halves with a real model are open.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.openai_server import FakeOpenAI, Running
from fakes.wording import NoisyAgent, NoisyUser

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.chat import ChatModel, ChatSampling
from muarl_cli.engines.wire import Wire
from muarl_cli.scoring.metrics import count
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.llm import LlmUsers
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.scenario import Task, stage_of

LIMITS = Limits(max_turns=40, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=120)
AGENTS = ("oracle", "careful", "hasty", "do-nothing")
TASKS, IN_FLIGHT = 120, 32


class Reworded:
    """An agent whose words go through a served model before the user hears them."""

    said: ClassVar = [0, 0]
    """turns that came back in other words, turns that were sent"""

    def __init__(self, inner: AgentSession, chat: ChatModel, seed: int) -> None:
        self.inner, self.chat, self.seed, self.turns = inner, chat, seed, 0

    async def act(self, news: Sequence[Any]) -> AgentTurn:
        turn = await self.inner.act(news)
        if not turn.text:
            return turn
        self.turns += 1
        messages = [{"role": "system", "content": f"{self.seed}/{self.turns}"}, {"role": "user", "content": turn.text}]
        reply = await self.chat.reply(messages, ChatSampling(temperature=1.0, max_tokens=512, seed=self.seed))
        Reworded.said[0] += reply.text != turn.text
        Reworded.said[1] += 1
        return AgentTurn(reply.text, turn.calls, turn.stop)

    def rows(self) -> tuple[Any, ...]:
        return ()

    def close(self) -> None:
        self.inner.close()


async def misses(domain: Domain, chat: ChatModel | None) -> tuple[int, int, int]:
    """(turns not understood, agent turns heard, tasks solved) of the oracle."""
    agents, users = ScriptedAgents(domain.language, Manner.ORACLE), AgendaUsers(domain.language)

    async def one(number: int, task: Task) -> tuple[int, int, int]:
        stage = stage_of(domain, number)
        inner: Any = agents.open(stage, task)
        agent = Reworded(inner, chat, number) if chat else inner
        user, world = users.open(stage, task), domain.world(task)
        talk = await converse(agent, user, world, greeting=domain.greeting, limits=LIMITS)
        heard = sum(event.heard_by_user() for event in talk.events) - 1  # the greeting is not an answer
        solved = talk.end.reason.graded and domain.outcome(task, world, talk.events).reward == 1
        return user.misses, heard, int(solved)

    tasks = domain.tasks("test")[:TASKS]
    found = await run_all([lambda n=n, t=t: one(n, t) for n, t in enumerate(tasks)], IN_FLIGHT)
    return tuple(map(sum, zip(*found, strict=True)))  # type: ignore[return-value]


async def score(domain: Domain, agent: str, users: Any) -> list[bool]:
    """By task: solved, with a yes before every write."""
    agents: Any = DoNothing() if agent == "do-nothing" else ScriptedAgents(domain.language, Manner(agent))

    async def one(number: int, task: Task) -> bool:
        stage: Stage = stage_of(domain, number)
        world = domain.world(task)
        talk = await converse(
            agents.open(stage, task), users.open(stage, task), world, greeting=domain.greeting, limits=LIMITS
        )
        if not talk.end.reason.graded:
            return False
        clean = count(talk.events).unconfirmed_episodes == 0
        return clean and domain.outcome(task, world, talk.events).reward == 1

    tasks = domain.tasks("test")[:TASKS]
    return await run_all([lambda n=n, t=t: one(n, t) for n, t in enumerate(tasks)], IN_FLIGHT)


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Kendall's tau over the pairs that at least one ranking tells apart."""
    signs = [
        (one[a] > one[b], one[a] < one[b], other[a] > other[b], other[a] < other[b]) for a, b in combinations(AGENTS, 2)
    ]
    apart = [sign for sign in signs if any(sign)]
    same = sum(sign[:2] == sign[2:] for sign in apart)
    against = sum((sign[0] and sign[3]) or (sign[1] and sign[2]) for sign in apart)
    return (same - against) / len(apart)


async def measure() -> dict[str, Any]:
    result: dict[str, Any] = {"tasks": TASKS * len(BUILTIN), "misses": {}, "solved": {}, "scores": {}}
    with Running(FakeOpenAI(NoisyAgent(), keep_requests=False)) as url:
        async with Wire(resolve_address(url, {})) as wire:
            for label, chat in (("oracle", None), ("reworded", ChatModel(wire, "m"))):
                found = [await misses(builtin(name), chat) for name in BUILTIN]
                missed, heard, solved = map(sum, zip(*found, strict=True))
                result["misses"][label] = missed / heard
                result["solved"][label] = solved / result["tasks"]
    result["in_other_words"] = Reworded.said[0] / Reworded.said[1]
    with Running(FakeOpenAI(NoisyUser(), keep_requests=False)) as url:
        async with Wire(resolve_address(url, {})) as wire:
            for label in ("scripted", "worded"):
                rows = {}
                for agent in AGENTS:
                    clean: list[bool] = []
                    for name in BUILTIN:
                        domain = builtin(name)
                        script = AgendaUsers(domain.language)
                        worded = LlmUsers(
                            ChatModel(wire, "m"),
                            domain.user_prompt,
                            temperature=0.7,
                            max_tokens=200,
                            agenda=script.open,
                        )
                        clean += await score(domain, agent, script if label == "scripted" else worded)
                    rows[agent] = sum(clean) / len(clean)
                result["scores"][label] = rows
    result["tau"] = tau(result["scores"]["scripted"], result["scores"]["worded"])
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
