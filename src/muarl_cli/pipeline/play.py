"""Playing planned episodes: from a list of jobs to lines in the log, resumable at any moment.

Invariants: the same job always makes the same episode id; what is in the log is not played again; turns that are
generated in this process are replayed in their original waves, since the last bits of log-probabilities depend on who
else was in the batch; nothing is reported as done before it is on disk.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from muarl_cli.benchmarks.assertions import AssertionJudge
from muarl_cli.conversation.episode import SCHEMA, Episode, Key, StateHashes
from muarl_cli.conversation.events import Actor, Event
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import AgentFactory, Fault, UserFactory, World
from muarl_cli.conversation.scheduler import Places, run_all
from muarl_cli.errors import ExitCode
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.live import Meter
from muarl_cli.pipeline.parties import Agents, Users
from muarl_cli.records.log import EpisodeLog
from muarl_cli.scoring.summary import MAX_FAULT_SHARE
from muarl_cli.worlds.scenario import Scenario, Task, stage_of

FLUSH = 64
"""episodes of scripted agents that share one flush to disk"""


@dataclass(frozen=True)
class Job:
    """One episode to be played."""

    key: Key
    scenario: Scenario
    task: Task


def job(run_id: str, stage: str, step: int, scenario: Scenario, task: Task, rollout: int, seed: int) -> Job:
    """The job of one rollout; its seed depends on the run's seed and on what the rollout is, and on nothing else."""
    own = derive_seed(seed, step, task.task_hash, rollout)
    name = f"{task.source}:{task.scenario}"
    return Job(Key(run_id, stage, step, name, task.id, task.task_hash, task.split, rollout, own), scenario, task)


def limits_of(settings: Any) -> Limits:
    """The loop's limits from a stage's settings."""
    own = settings.limits
    return Limits(
        own.max_turns,
        own.max_agent_tokens,
        own.max_identical_calls,
        own.max_failed_calls,
        own.max_seconds,
        official=getattr(settings, "official_limits", False),
    )


Around = Callable[[Job, World], World]
"""puts something around the world of a job: injectors, a guard"""


async def play(
    job: Job,
    agents: AgentFactory,
    users: UserFactory,
    limits: Limits,
    around: Around | None = None,
    judge: AssertionJudge | None = None,
    saw: Callable[[Event], None] | None = None,
) -> Episode:
    """Hold one conversation and grade it; `judge` reads what a task asserts in words. `saw`, and a world with a `watch`
    method, are told each event as it happens."""
    scenario, task = job.scenario, job.task
    key = job.key  # another attempt keeps its id and draws anew: the same draws could end in the same fault
    stage = stage_of(scenario, derive_seed(key.seed, "attempt", key.attempt) if key.attempt else key.seed, task)
    started = time.time()
    official = getattr(scenario, "official_limits", None)
    world = around(job, scenario.world(task)) if around else scenario.world(task)
    agent, user = agents.open(stage, task), users.open(stage, task)
    try:
        transcript = await converse(
            agent,
            user,
            world,
            greeting=scenario.greeting,
            limits=official(limits) if official and limits.official else limits,
            agent_may_stop=scenario.agent_may_stop,
            on_event=_both(getattr(world, "watch", None), saw),
        )
        rows = agent.rows()
        drawn_with = tuple(getattr(agent, "weight_versions", ()))
        reward, state, detail = _grade(scenario, task, world, transcript)
        if judge is not None and reward is not None:
            reward, detail = await judge.judged(task, transcript.events, reward, detail)
    finally:
        agent.close()
        user.close()
        world.close()
    tally = transcript.tally
    tags = {tag for e in transcript.events if e.actor is Actor.USER for tag in e.tags}
    fired = sorted(tag.removeprefix("inject:") for tag in tags if tag.startswith("inject:"))
    return Episode(
        schema=SCHEMA,
        **key.identity,
        policy_hash=scenario.policy_hash,
        agent={**agents.info, **_weights(drawn_with)},
        user={"persona": "", **users.info, "seed": key.seed, "injectors_fired": fired},
        events=tuple(transcript.events),
        end=transcript.end,
        valid=transcript.end.reason.valid,
        reward=reward,
        state=state,
        usage={
            "agent_tokens": tally.agent_tokens,
            "user_tokens": tally.user_tokens,
            "prompt_tokens": tally.prompt_tokens,
            "turns": tally.turns,
            "tool_calls": tally.tool_calls,
        },
        detail=detail,
        volatile={"started": started, "seconds": transcript.seconds, "cost_usd": tally.cost_usd, "pid": os.getpid()},
        rows=rows,
    )


def _weights(versions: Sequence[str]) -> dict[str, Any]:
    """What the log says of the weights that drew an episode: those of its first turn, the oldest; and those of each
    turn, where they were replaced on the way."""
    if not versions:
        return {}
    several = {"weight_versions": list(versions)} if len(set(versions)) > 1 else {}
    return {"weight_version": versions[0], **several}


def _both(one: Callable[[Event], None] | None, other: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    if one is None or other is None:
        return one or other

    def tell(event: Event) -> None:
        one(event)
        other(event)

    return tell


def _grade(
    scenario: Scenario, task: Task, world: Any, transcript: Transcript
) -> tuple[float | None, StateHashes, dict[str, Any]]:
    reason = transcript.end.reason
    if not reason.valid:
        return None, StateHashes(), {}
    try:
        outcome = scenario.outcome(task, world, transcript.events)
    except Fault as fault:  # a world that cannot tell its state any more: not the agent's doing
        transcript.end = type(transcript.end)(fault.reason, str(fault)[:500])
        return None, StateHashes(), {}
    return (outcome.reward if reason.graded else 0.0), outcome.state, dict(outcome.detail)


def replaced_code(faults: int, episodes: int) -> ExitCode:
    """The exit code of a stage that replaces invalid episodes by others: a few are its daily work, many are not."""
    return ExitCode.PARTIAL if faults > MAX_FAULT_SHARE * episodes else ExitCode.OK


class Plays(Protocol):
    """What holds conversations: `Player`."""

    async def run(self, jobs: Sequence[Job]) -> list[Episode]: ...


async def run_again(player: Plays, jobs: Sequence[Job], retries: int) -> tuple[list[Episode], list[Episode]]:
    """An episode a job, and the invalid ones that were replaced: a job that ended in a fault is played again under the
    same id, as another attempt, at most `retries` times."""
    episodes, replaced = await player.run(jobs), []
    for attempt in range(1, retries + 1):
        broken = [place for place, episode in enumerate(episodes) if not episode.valid]
        if not broken:
            break
        again = [replace(jobs[place], key=replace(jobs[place].key, attempt=attempt)) for place in broken]
        for place, episode in zip(broken, await player.run(again), strict=True):
            replaced.append(episodes[place])
            episodes[place] = episode
    return episodes, replaced


def _at_hand(finished: asyncio.Queue[Episode]) -> list[Episode]:
    """What waits in the queue now."""
    return [finished.get_nowait() for _ in range(finished.qsize())]


class Player:
    """Plays jobs with the parties of a run and writes them down. Leaving it lets go of their connections."""

    def __init__(
        self,
        agents: Agents,
        users: Users,
        limits: Limits,
        in_flight: int,
        log: EpisodeLog,
        around: Around | None = None,
        judge: AssertionJudge | None = None,
        remote_worlds: bool = False,
        places: Places | None = None,
    ) -> None:
        """`remote_worlds`: tools are answered from outside of this process. `places`: shared by calls of `run` that are
        under way at the same time, jobs of earlier steps first; without them each has `in_flight` of its own."""
        self.agents, self.users, self.limits, self.in_flight, self.log = agents, users, limits, in_flight, log
        self.around, self.judge, self.remote_worlds = around, judge, remote_worlds
        self.places = places
        self.meter = Meter(lambda: [*agents.wires, *users.wires], agents.engine)
        """what is going on, for a display"""
        self._probed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.agents.close()
        await self.users.close()
        if self.judge is not None:
            await self.judge.chat.wire.close()

    async def run(self, jobs: Sequence[Job], on_done: Callable[[Episode], None] | None = None) -> list[Episode]:
        """Episodes of all jobs, in their order; those that are in the log already are read from there."""
        owed = [j for j in jobs if not self.log.is_done(j.key.episode_id)]
        if owed:
            await self._probe()
        if self.agents.in_process:
            return await self._in_waves(jobs, self.in_flight, on_done)
        if self._immediate():
            played = await self._in_waves(owed, FLUSH, on_done)
        else:
            played = await self._as_they_finish(owed, on_done)
        fresh = {episode.episode_id: episode for episode in played}
        ids = [j.key.episode_id for j in jobs]
        return [fresh[i] if i in fresh else self.log.read(i, rows=True) for i in ids]

    async def _probe(self) -> None:
        """Once, before the first episode: whoever is served answers. A dead address would look like many faults."""
        if not self._probed:
            await self.agents.probe()
            await self.users.probe()
            self._probed = True

    def _immediate(self) -> bool:
        """Whether nobody waits for the outside world, so that episodes finish in the order they started."""
        return self.agents.fixed is None and not self.users.remote and not self.remote_worlds

    async def _in_waves(
        self, jobs: Sequence[Job], size: int, on_done: Callable[[Episode], None] | None
    ) -> list[Episode]:
        episodes: list[Episode] = []
        for start in range(0, len(jobs), size):
            wave = jobs[start : start + size]
            if all(self.log.is_done(j.key.episode_id) for j in wave):
                played = [self.log.read(j.key.episode_id, rows=True) for j in wave]
            else:
                await self.agents.forget()
                played = await run_all([self._starter(j) for j in wave], size)
                self.log.append_many(played)
            for episode in played:
                if on_done:
                    on_done(episode)
            episodes += played
        return episodes

    async def _as_they_finish(self, jobs: Sequence[Job], on_done: Callable[[Episode], None] | None) -> list[Episode]:
        """Write behind: finished episodes are flushed together while others talk on; none is reported before that.

        Where the disk is slower than the conversations, at most `in_flight` finished ones wait for it, and no new one
        starts before there is room. What is finished when the run is cancelled is written before it ends.
        """
        finished: asyncio.Queue[Episode] = asyncio.Queue(max(1, self.in_flight))
        late: list[Episode] = []
        """finished, and cancelled while they waited for room"""
        written: list[Episode] = []
        disk = ThreadPoolExecutor(1, thread_name_prefix="muarl-log")

        async def writer() -> None:
            while True:
                batch = [await finished.get(), *_at_hand(finished)]
                # shielded: who is cancelled here must not take back a write that has not begun
                await asyncio.shield(asyncio.wrap_future(disk.submit(self.log.append_many, batch)))
                for episode in batch:
                    if on_done:
                        on_done(episode)
                    finished.task_done()
                written.extend(batch)

        def starter(job: Job) -> Callable[[], Any]:
            start = self._starter(job)

            async def run() -> None:
                episode = await start()
                try:
                    await finished.put(episode)
                except asyncio.CancelledError:
                    late.append(episode)
                    raise

            return run

        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(writer())
                await run_all([starter(j) for j in jobs], self.in_flight)
                await finished.join()
                writing.cancel()
        finally:  # behind what is being written, so that the log is not closed under it
            with disk:
                disk.submit(self.log.append_many, [*_at_hand(finished), *late]).result()
        return written

    def _starter(self, job: Job) -> Callable[[], Any]:
        seed = job.key.seed
        agents, users = self.agents.of(job.scenario, seed), self.users.of(job.scenario, seed)

        async def start() -> Episode:
            async with self.places.taken(job.key.step) if self.places else nullcontext():
                return await play(job, agents, users, self.limits, self.around, self.judge, self.meter.saw)

        return start
