"""US-02 and US-03: the scripted user replays to the byte, and seeds differ. Prints one JSON document.

python docs/measure/users_replay.py [--seeds 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import json

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.protocols import Stage
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=40, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


def dialogue(domain: Domain, users: AgendaUsers, task: Task, seed: int) -> str:
    """A conversation of the careful agent as text, with calls and tags."""
    stage = Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)
    agent = ScriptedAgents(domain.language, Manner.CAREFUL).open(stage, task)
    world = domain.world(task)
    talk = asyncio.run(converse(agent, users.open(stage, task), world, greeting=domain.greeting, limits=LIMITS))
    return "\n".join(f"{e.actor} {e.kind} {e.text} {e.call} {e.tags}" for e in talk.events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    seeds = parser.parse_args().seeds
    everything = {injector.value: 0.5 for injector in Injector}
    identical, distinct = 0, []
    for name in BUILTIN:
        domain = builtin(name)
        for rates in ({}, everything):
            users, again = AgendaUsers(domain.language, rates), AgendaUsers(domain.language, rates)
            tasks = domain.tasks("test")
            for seed in range(seeds):
                task = tasks[seed % len(tasks)]
                identical += dialogue(domain, users, task, seed) == dialogue(domain, again, task, seed)
        plain = AgendaUsers(domain.language)
        for task in domain.tasks("dev")[:20]:
            distinct.append(len({dialogue(domain, plain, task, seed) for seed in range(100)}))
    compared = seeds * 2 * len(BUILTIN)
    print(
        json.dumps(
            {"seeds": seeds, "compared": compared, "identical": identical, "least_distinct_of_100": min(distinct)}
        )
    )


if __name__ == "__main__":
    main()
