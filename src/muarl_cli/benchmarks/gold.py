"""Gold replay of a task set through our loop and the benchmark's own scorer, straight and corrupted.

It proves that data, tools, end-state check and loop agree, and that the scorer can say no: a replay that leaves out the
last call that changes the state has to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.provider import GoldCount
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task, stage_of

LIMITS = Limits(max_turns=200, max_agent_tokens=0, max_identical_calls=50, max_failed_calls=50, max_seconds=120.0)
"""wider than any gold path"""
IN_FLIGHT = 8


def gold_count(
    scenario: Any, split: str, known: Collection[str] = (), unseen: Collection[str] = (), why: str = ""
) -> GoldCount:
    """Replay every task of a split. `known` are ids whose gold no conversation can follow to its end, `unseen` those
    whose last write upstream does not look at; `why` says what they suffer from."""
    tasks = list(scenario.tasks(split))
    straight = asyncio.run(_replay(scenario, tasks, GoldReplay()))
    writing = [task for task in tasks if task.writes and task.id not in known]
    corrupted = asyncio.run(_replay(scenario, writing, GoldReplay(drop_last_write=True)))
    failures = [task.id for task, reward in zip(tasks, straight, strict=True) if reward != 1.0]
    passed = len(tasks) - len(failures)
    return GoldCount(
        tasks=len(tasks),
        passed=passed,
        corrupted=len(writing),
        corrupted_failed=sum(reward != 1.0 for reward in corrupted),
        known_unseen=tuple(
            task.id for task, reward in zip(writing, corrupted, strict=True) if reward == 1.0 and task.id in unseen
        ),
        known_failures=tuple(name for name in failures if name in known),
        failures=tuple(name for name in failures if name not in known),
        why=why,
        scorer_passed=passed + sum(scenario.scorer_passes(t) for t in tasks if t.id in failures and t.id in known),
    )


async def _replay(scenario: Any, tasks: Sequence[Task], agents: Any) -> list[float]:
    users = getattr(scenario, "users", None) or MinimalUsers()
    return await run_all([partial(_play, scenario, task, agents, users) for task in tasks], IN_FLIGHT)


async def _play(scenario: Any, task: Task, agents: Any, users: Any) -> float:
    stage = stage_of(scenario, 0, task)
    world, agent, user = scenario.world(task), agents.open(stage, task), users.open(stage, task)
    try:
        transcript = await converse(
            agent,
            user,
            world,
            greeting=scenario.greeting,
            limits=LIMITS,
            agent_may_stop=scenario.agent_may_stop,
        )
        if not transcript.end.reason.graded:
            return 0.0
        return float(scenario.outcome(task, world, transcript.events).reward)
    finally:
        agent.close()
        user.close()
        world.close()
