"""Real conversations of scripted parties, as episodes, for the tests of layers."""

from __future__ import annotations

import asyncio
from functools import cache
from types import SimpleNamespace
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.limits import Limits
from muarl_cli.pipeline.parties import scripted_agent, scripted_user
from muarl_cli.pipeline.play import job, play
from muarl_cli.pipeline.surroundings import around_of
from muarl_cli.worlds.domain import Domain, builtin
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


def talk(
    domain: Domain, task: Task, agent: Any, injectors: str = "", guard: bool = False, rollout: int = 0, run: str = "run"
) -> Episode:
    """One conversation; `agent` is the name of a scripted one, or a factory."""
    factory = scripted_agent(agent, domain) if isinstance(agent, str) else agent
    around = around_of(SimpleNamespace(world_injectors=injectors, guard=guard))
    work = job(run, "eval", 0, domain, task, rollout, 1)
    return asyncio.run(play(work, factory, scripted_user(domain), LIMITS, around))


@cache
def talks(
    name: str, agent: str, injectors: str = "", guard: bool = False, most: int = 60
) -> list[tuple[Task, Episode]]:
    """Conversations about the first test tasks of a built-in scenario."""
    domain = builtin(name)
    return [(task, talk(domain, task, agent, injectors, guard)) for task in domain.tasks("test")[:most]]
