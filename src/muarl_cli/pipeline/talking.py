"""What a turn costs beside the models: reading it, tools, the user's script, the log's events, asking a served user.

Conversations of an earlier run are held again by the ordinary loop, with an engine that says at once what was said
then; and where the user is served once more, with one that answers at once at an address of this process. Invariant: no
model is asked, and nothing is written; time is this thread's own, so that others on the machine do not count, unless
the caller says by which clock.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor
from muarl_cli.conversation.protocols import UserFactory
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.engines.protocol import Finish, Generation, Sampling
from muarl_cli.pipeline.parties import Users, scripted_user
from muarl_cli.pipeline.play import Job, Key, limits_of, play
from muarl_cli.pipeline.policy import Policy
from muarl_cli.settings.models import RlTrain
from muarl_cli.worlds.catalog import load_tasks

_FEW, _MANY = 4, 32
_NO_MONEY = 1e9
"""a spend cap: nothing is paid at an address of this process"""
_REPLY = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes, please."}}],
    "usage": {"prompt_tokens": 500, "completion_tokens": 4, "total_tokens": 504},
}


def seconds_a_turn(
    policy: Policy,
    settings: RlTrain,
    episodes: Sequence[Episode],
    turns: Sequence[Any],
    clock: Callable[[], float] = time.thread_time,
) -> tuple[float, float]:
    """Seconds of this process for a turn of the agent and what follows it; and how many more for one of a served user,
    0 where the user is not. `turns` are the ids of each episode's turns, in order; `policy` needs no weights. By
    another `clock`, what else this process does meanwhile counts."""
    jobs = [_job(episode) for episode in episodes[:_MANY]]
    scripted = _timed(policy, settings, jobs, turns, clock, lambda job: scripted_user(job.scenario))
    talk = scripted.seconds / max(1, scripted.turns)
    if "llm" not in settings.user.backend:
        return talk, 0.0
    with _answering() as url, tempfile.TemporaryDirectory() as folder:
        # what it says is no matter: the script behind it knows how the conversation goes on
        own = {"backend": "llm", "base_url": url, "fidelity": "off", "personas": {}, "cassette": ""}
        users = Users(settings.user.model_copy(update=own), settings.prices, _NO_MONEY, Path(folder))
        served = _timed(
            policy, settings, jobs, turns, clock, lambda job: users.of(job.scenario, job.key.seed), users.close
        )
    return talk, max(0.0, served.seconds - talk * served.turns) / max(1, served.asked)


@dataclass(frozen=True)
class _Held:
    """Conversations that were held: this thread's seconds, turns of the agent, turns of the user."""

    seconds: float
    turns: int
    asked: int


def _timed(
    policy: Policy,
    settings: RlTrain,
    jobs: Sequence[Job],
    turns: Sequence[Any],
    clock: Callable[[], float],
    user: Callable[[Job], UserFactory],
    close: Callable[[], Awaitable[None]] | None = None,
) -> _Held:
    async def hold() -> _Held:
        await _hold(policy, settings, jobs[:_FEW], turns, user)  # tables and patterns are made once
        gc.collect()
        begun = clock()
        taken, asked = await _hold(policy, settings, jobs, turns, user)
        spent = clock() - begun
        if close:
            await close()
        return _Held(spent, taken, asked)

    gc.disable()  # one full collection of everything that was imported takes longer than all these turns
    try:
        return asyncio.run(hold())
    finally:
        gc.enable()


async def _hold(
    policy: Policy, settings: RlTrain, jobs: Sequence[Job], turns: Sequence[Any], user: Callable[[Job], UserFactory]
) -> tuple[int, int]:
    """Hold the conversations; how many turns the agent and the user took."""
    engine = _Recorded(turns)
    agent, limits = policy.agent(settings, "probe", engine), limits_of(settings)
    held = await run_all([partial(play, job, agent, user(job), limits) for job in jobs], len(jobs))
    asked = sum(event.actor is Actor.USER for episode in held for event in episode.events)
    return engine.taken, asked


@contextmanager
def _answering() -> Iterator[str]:
    """The address of a chat server in a thread of its own, for as long as the block lasts."""
    from aiohttp import web

    async def reply(_: web.Request) -> web.Response:
        return web.json_response(_REPLY)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    runner, loop = web.AppRunner(app), asyncio.new_event_loop()
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, name="muarl-probe", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


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
