"""How fast the scripted user answers: prints one JSON object.

    python benchmarks/users.py [--repeat 7] [--seeds 3] [--memory-turns 0]

Conversations of the careful agent with the scripted user are held once and their agent turns kept; a fresh user then
answers the same turns again, and only that is timed, in CPU seconds of one process. Every conversation has other values
and another seed, and none is heard twice in a repeat, so nothing can be answered from a memory of whole turns.
`turns_per_second` is the median of the repeats. With `--memory-turns N` it also reports the growth of the process's
memory over N further turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.protocols import Stage
from muarl_cli.users.agenda import AgendaUser, AgendaUsers
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin

LIMITS = Limits(max_turns=40, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)
Talk = tuple[AgendaUsers, Stage, Any, list[str]]
"""who opens the user, for which stage and task, and what the agent then says"""


def record(domain: Domain, users: AgendaUsers, seeds: int) -> list[Talk]:
    """What the agent said in conversations over the test split, one a task and seed."""
    agents = ScriptedAgents(domain.language, Manner.CAREFUL)
    talks = []
    for seed in range(seeds):
        for task in domain.tasks("test"):
            stage = Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)
            user = _Ear(users.open(stage, task))
            agent, world = agents.open(stage, task), domain.world(task)
            asyncio.run(converse(agent, user, world, greeting=domain.greeting, limits=LIMITS))
            talks.append((users, stage, task, user.heard))
    return talks


class _Ear:
    """A user that keeps what it heard."""

    def __init__(self, user: AgendaUser) -> None:
        self.user = user
        self.heard: list[str] = []

    async def respond(self, news: Sequence[Any]) -> Any:
        turn = await self.user.respond(news)
        self.heard.append(" ".join(event.text for event in news if event.heard_by_user()))
        return turn

    def close(self) -> None:
        return None


def answer_all(talks: Sequence[Talk]) -> tuple[int, float]:
    """(turns answered, CPU seconds of answering); opening a user is not counted."""
    turns, seconds = 0, 0.0
    for users, stage, task, heard in talks:
        user = users.open(stage, task)
        start = time.process_time()
        for text in heard:
            user.answer(text)
        seconds += time.process_time() - start
        turns += len(heard)
    return turns, seconds


def speed(talks: Sequence[Talk], repeat: int) -> dict[str, Any]:
    rates = []
    for _ in range(repeat):
        turns, seconds = answer_all(talks)
        rates.append(turns / seconds)
    return {"turns": turns, "turns_per_second": round(statistics.median(rates)), "slowest": round(min(rates))}


def growth(talks: Sequence[Talk], turns: int) -> dict[str, Any]:
    """Peak memory before and after `turns` more turns, in MB."""
    answer_all(talks)
    before, done = _peak_mb(), 0
    while done < turns:
        done += answer_all(talks)[0]
    return {"turns": done, "before_mb": round(before, 1), "growth_mb": round(_peak_mb() - before, 1)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--memory-turns", type=int, default=0)
    options = parser.parse_args()
    domains = [builtin(name) for name in BUILTIN]
    result: dict[str, Any] = {"scenarios": {}}
    plain: list[Talk] = []
    for domain in domains:
        talks = record(domain, AgendaUsers(domain.language), options.seeds)
        result["scenarios"][domain.name] = speed(talks, options.repeat)
        plain += talks
    result |= speed(plain, options.repeat)
    everything = {name.value: 1.0 for name in Injector}
    injected = [
        talk for domain in domains for talk in record(domain, AgendaUsers(domain.language, everything), options.seeds)
    ]
    result["all_injectors"] = speed(injected, options.repeat)
    if options.memory_turns:
        result["memory"] = growth(plain + injected, options.memory_turns)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
