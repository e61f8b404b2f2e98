"""What a turn costs beside the model: reading it, tools, the scripted user, the log's events.

Conversations of an earlier run are held again by the ordinary loop, with an engine that says at once what was said
then. Invariant: no model is asked, and nothing is written; time is this thread's own, so that others on the machine do
not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.engines.protocol import Finish, Generation, Sampling
from muarl_cli.pipeline.parties import scripted_user
from muarl_cli.pipeline.play import Job, Key, limits_of, play
from muarl_cli.pipeline.policy import Policy
from muarl_cli.settings.models import RlTrain
from muarl_cli.worlds.catalog import load_tasks

_FEW, _MANY = 4, 32


def seconds_a_turn(policy: Policy, settings: RlTrain, episodes: Sequence[Episode], turns: Sequence[Any]) -> float:
    """Seconds of this process for a turn of the agent and what follows it. `turns` are the ids of each episode's turns,
    in order; `policy` needs no weights."""
    jobs = [_job(episode) for episode in episodes[:_MANY]]
    _hold(policy, settings, jobs[:_FEW], turns)  # tables and patterns are made once
    begun = time.thread_time()
    held = _hold(policy, settings, jobs, turns)
    return (time.thread_time() - begun) / max(1, held)


def _hold(policy: Policy, settings: RlTrain, jobs: Sequence[Job], turns: Sequence[Any]) -> int:
    """Hold the conversations; how many turns the agent took."""
    engine = _Recorded(turns)
    agent, limits = policy.agent(settings, "probe", engine), limits_of(settings)
    asyncio.run(run_all([partial(play, job, agent, scripted_user(job.scenario), limits) for job in jobs], len(jobs)))
    return engine.taken


class _Recorded:
    """The n-th session that asks gets the turns of the n-th conversation, and when they are over the last one again."""

    weight_version = "probe"

    def __init__(self, turns: Sequence[Any]) -> None:
        self._turns = turns
        self._next: dict[str, int] = {}
        self.taken = 0

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        own = self._turns[int(session) - 1]
        place = min(self._next.get(session, 0), len(own) - 1)
        self._next[session] = place + 1
        self.taken += 1
        ids = tuple(own[place])
        return Generation(ids, (0.0,) * len(ids), Finish.STOP, self.weight_version)

    def release(self, session: str) -> None:
        self._next.pop(session, None)


def _job(episode: Episode) -> Job:
    ((scenario, task),) = load_tasks([f"{episode.scenario}:{episode.split}:{episode.task_id}"])
    own = (episode.run_id, episode.stage, episode.step, episode.scenario, episode.task_id, episode.task_hash)
    return Job(Key(*own, episode.split, episode.rollout, episode.seed), scenario, task)
