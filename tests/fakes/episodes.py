"""Plays tasks of a scenario through the real loop, as the stages do, and grades them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.worlds.scenario import Outcome, Task, stage_of

LIMITS = Limits(max_turns=60, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=120.0)


@dataclass(frozen=True)
class Played:
    """One finished conversation."""

    task: Task
    transcript: Transcript
    outcome: Outcome


async def play(scenario: Any, task: Task, agents: Any, users: Any, seed: int = 7, limits: Limits = LIMITS) -> Played:
    """One episode of `task`."""
    stage = stage_of(scenario, seed, task)
    world, agent, user = scenario.world(task), agents.open(stage, task), users.open(stage, task)
    try:
        transcript = await converse(
            agent, user, world, greeting=scenario.greeting, limits=limits, agent_may_stop=scenario.agent_may_stop
        )
        return Played(task, transcript, scenario.outcome(task, world, transcript.events))
    finally:
        agent.close()
        user.close()
        world.close()


async def play_all(
    scenario: Any, tasks: Sequence[Task], agents: Any, users: Any, in_flight: int = 16, limits: Limits = LIMITS
) -> list[Played]:
    """One episode of each task, in the order given."""
    return await run_all(
        [lambda task=task: play(scenario, task, agents, users, limits=limits) for task in tasks], in_flight
    )
