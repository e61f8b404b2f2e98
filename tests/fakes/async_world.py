"""Asynchronous training without models: the tasks, the groups, the scheduling and the order of steps are the real ones;
conversations are sleeps that note which weights drew their turns, an update is a sleep, the log is a dictionary.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from fakes.virtual_loop import run_virtually

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.conversation.scheduler import Places, run_all
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.lookahead import Lookahead
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.rl_batches import StepTasks, TaskStream, collect
from muarl_cli.pipeline.rl_metrics import staleness_metrics

SCENARIO = SimpleNamespace(source="builtin", name="toy")
TURNS, GROUP = 3, 2
ROW = TokenRow(
    (1, 2) * TURNS, (int(Owner.USER), int(Owner.AGENT)) * TURNS, (0.0, -1.0) * TURNS
)  # a token a turn of each


def toy_tasks(count: int) -> list[Any]:
    return [
        (SCENARIO, SimpleNamespace(source="builtin", scenario="toy", id=str(i), task_hash=f"h{i}", split="train"))
        for i in range(count)
    ]


@dataclass
class World:
    """The fake run: latencies by a seed, the version that the engines serve, and what happened."""

    seed: int
    bound: int
    steps: int
    prompts: int = 2
    tasks: int = 9
    in_flight: int = 5
    faults: float = 0.1
    serving: int = 0
    kept: dict[str, Any] = field(default_factory=dict)
    """the log: valid episodes by id"""
    trained: list[list[Any]] = field(default_factory=list)
    """the episodes of each step, in the order of steps"""
    lags: list[int] = field(default_factory=list)
    stop_at: float = float("inf")
    most: int = 0
    drawn: list[str] = field(default_factory=list)

    def chance(self, *what: Any) -> float:
        return derive_seed(self.seed, *what) % 10_000 / 10_000

    def seconds(self, *what: Any) -> float:
        """Mostly short, at times a hundred times as long."""
        draw = self.chance(*what)
        return 100.0 * draw if draw > 0.95 else draw


class Player:
    """`Plays` over the world's clock: what is in the log is read from there."""

    def __init__(self, world: World) -> None:
        self.world, self.places = world, Places(world.in_flight)

    async def run(self, jobs: Any) -> list[Any]:
        owed = [j for j in jobs if j.key.episode_id not in self.world.kept]
        played = await run_all([partial(self._hold, j) for j in owed], self.world.in_flight)
        found = {j.key.episode_id: e for j, e in zip(owed, played, strict=True)}
        return [found.get(j.key.episode_id) or self.world.kept[j.key.episode_id] for j in jobs]

    async def _hold(self, job: Any) -> Any:
        world, key = self.world, job.key
        async with self.places.taken(key.step):
            world.most = max(world.most, self.places.taken_now)
            versions = []
            for turn in range(TURNS):
                versions.append(str(world.serving))
                await asyncio.sleep(world.seconds("turn", key.episode_id, key.attempt, turn))
        fault = world.chance("fault", key.episode_id, key.attempt) < world.faults
        reward = None if fault else float(world.chance("reward", key.episode_id) < 0.5)
        reason = EndReason.USER_FAULT if fault else EndReason.USER_STOP
        several = {"weight_versions": versions} if len(set(versions)) > 1 else {}
        episode = SimpleNamespace(
            episode_id=key.episode_id, step=key.step, task_hash=key.task_hash, reward=reward, valid=not fault,
            end=SimpleNamespace(reason=reason), rows=(ROW,), agent={"weight_version": versions[0], **several},
            usage={"turns": 1, "tool_calls": 0, "agent_tokens": TURNS},
        )  # fmt: skip
        if not fault:
            assert key.episode_id not in world.kept, "an acknowledged episode was held again"
            world.kept[key.episode_id] = episode
        return episode


async def train(world: World, begun: int = 0) -> None:
    """The loop of `rl-train`, from the checkpoint after `begun` steps; ends early at `stop_at`, as a kill does."""
    chosen: Any = SimpleNamespace(
        prompts_per_step=world.prompts, group=GROUP, refill_rounds=2, retry_faults=1, advantage="mean",
        reward="outcome", credit="episode",
    )  # fmt: skip
    player = Player(world)
    stream = TaskStream(toy_tasks(world.tasks), world.seed, begun * world.prompts)

    def hold(step: int) -> Any:
        tasks = StepTasks(stream, world.prompts, step)
        return collect(chosen, player, tasks, lambda *what: job("run", "rl-train", step, *what, world.seed))

    world.serving = begun
    async with Lookahead(world.bound, begun, world.steps, hold) as ahead:
        for step in range(begun + 1, world.steps + 1):
            ahead.serving(world.serving)
            batch = await ahead.of(step)
            row = staleness_metrics(batch, step - 1)
            world.lags.append(row["staleness_max"])
            groups = [e for group in batch.kept for e in group.episodes if e.valid]
            assert all(e.step == step and e.episode_id in world.kept for e in groups)
            world.drawn += [group.task.id for group in batch.groups]
            await asyncio.sleep(world.seconds("update", step))
            if asyncio.get_running_loop().time() > world.stop_at:
                return
            world.trained.append([e.episode_id for e in groups])
            await asyncio.sleep(world.seconds("deliver", step))
            world.serving = step


def run(world: World, begun: int = 0) -> World:
    run_virtually(train(world, begun))
    return world
