"""Asynchronous training on a virtual clock: any latencies, any bound; nothing too old, nothing lost, nothing twice.

The tasks, the groups, the scheduling and the order of steps are the real ones; conversations are sleeps that note which
weights drew their turns, and an update is a sleep.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.virtual_loop import run_virtually
from hypothesis import given, settings
from hypothesis import strategies as st

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


def _tasks(count: int) -> list[Any]:
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


async def _train(world: World, begun: int = 0) -> None:
    """The loop of `rl-train`, from the checkpoint after `begun` steps; ends early at `stop_at`, as a kill does."""
    chosen: Any = SimpleNamespace(
        prompts_per_step=world.prompts, group=GROUP, refill_rounds=2, retry_faults=1, advantage="mean",
        reward="outcome", credit="episode",
    )  # fmt: skip
    player = Player(world)
    stream = TaskStream(_tasks(world.tasks), world.seed, begun * world.prompts)

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


def _run(world: World, begun: int = 0) -> World:
    run_virtually(_train(world, begun))
    return world


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(1, 7), st.integers(1, 12))
def test_whatever_the_latencies_no_token_is_older_than_the_bound_and_no_episode_trains_twice(
    seed: int, bound: int, steps: int, in_flight: int
) -> None:
    world = _run(World(seed, bound, steps, in_flight=in_flight))
    assert all(0 <= lag <= bound for lag in world.lags) and len(world.trained) == steps
    trained = [name for step in world.trained for name in step]
    assert len(trained) == len(set(trained)) and set(trained) <= set(world.kept)
    assert world.most <= in_flight


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_who_is_slow_decides_neither_the_tasks_nor_what_is_trained(seed: int, bound: int) -> None:
    """The same episodes in the same steps, whatever took how long: no length is favoured."""
    worlds = [_run(World(seed, bound, 4, in_flight=width)) for width in (1, 4, 100)]
    assert worlds[0].trained == worlds[1].trained == worlds[2].trained
    assert worlds[0].drawn == worlds[1].drawn == worlds[2].drawn


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_bound_of_0_is_the_synchronous_run(seed: int) -> None:
    world = _run(World(seed, 0, 4))
    assert set(world.lags) == {0}
    straight = World(seed, 0, 4)

    async def one_after_the_other() -> None:
        for step in range(1, 5):
            straight.steps = step
            await _train(straight, step - 1)

    run_virtually(one_after_the_other())
    assert straight.trained == world.trained and straight.kept == world.kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.floats(0.0, 60.0), st.integers(1, 3))
def test_after_a_kill_no_acknowledged_episode_is_held_again_and_none_is_left_out(
    seed: int, bound: int, when: float, every: int
) -> None:
    """Checkpoints every so many steps; the log is what survives. Steps that were trained before the kill, and again
    from the checkpoint, get the very same episodes: they make the same weights again."""
    world = _run(World(seed, bound, 6, stop_at=when, faults=0.0))
    before = dict(world.kept)
    first = list(world.trained)
    checkpoint = len(first) // every * every
    again = _run(World(seed, bound, 6, kept=dict(before), faults=0.0), checkpoint)
    assert again.trained[: len(first) - checkpoint] == first[checkpoint:]
    assert all(0 <= lag <= bound for lag in again.lags)
    whole = [name for step in [*first[:checkpoint], *again.trained] for name in step]
    assert len(whole) == len(set(whole))
    assert all(again.kept[name] is episode for name, episode in before.items())


@pytest.mark.parametrize("bound", [1, 2])
def test_while_a_step_trains_the_next_ones_go_on_and_no_further(bound: int) -> None:
    begun: list[tuple[int, float]] = []

    async def run() -> None:
        async def hold(step: int) -> int:
            begun.append((step, asyncio.get_running_loop().time()))
            await asyncio.sleep(1.0)
            return step

        async with Lookahead(bound, 0, 6, hold) as ahead:
            for step in range(1, 7):
                ahead.serving(step - 1)
                assert await ahead.of(step) == step
                await asyncio.sleep(1.0)  # the update

        # conversations and updates overlap: one second a step but for the first, not two
        assert asyncio.get_running_loop().time() == 7.0

    run_virtually(run())
    assert begun == [(s, s - bound if s > bound + 1 else 0.0) for s in range(1, 7)]


def test_what_fails_while_a_step_trains_is_raised_at_its_turn_and_ends_the_others() -> None:
    ended: list[int] = []

    async def hold(step: int) -> int:
        try:
            await asyncio.sleep(0.1 if step < 3 else 100.0)
            if step == 2:
                raise OSError("no space left")
            return step
        finally:
            ended.append(step)

    async def run() -> None:
        async with Lookahead(3, 0, 0, hold) as ahead:
            ahead.serving(0)
            assert await ahead.of(1) == 1
            await ahead.of(2)

    with pytest.raises(OSError, match="no space"):
        run_virtually(run())
    assert sorted(ended) == [1, 2, 3, 4]


def test_earlier_steps_go_first_whenever_they_ask_and_equals_in_their_order() -> None:
    order: list[str] = []

    async def run() -> None:
        places = Places(1)

        async def one(name: str, rank: int) -> None:
            async with places.taken(rank):
                order.append(name)
                await asyncio.sleep(1.0)

        await asyncio.gather(*(one(*who) for who in (("a", 5), ("b", 5), ("c", 5), ("early", 1))))
        assert places.taken_now == 0
        await asyncio.sleep(5.0)
        assert places.busy_seconds() == pytest.approx(4.0)

    run_virtually(run())
    assert order == ["a", "early", "b", "c"]


def test_a_place_is_not_lost_with_who_is_cancelled_while_waiting_for_it_or_being_given_it() -> None:
    order: list[str] = []

    async def run() -> None:
        places = Places(1)

        async def one(name: str) -> None:
            async with places.taken(1):
                order.append(name)
                await asyncio.sleep(1.0)
            if name == "a":  # has just handed its place over
                tasks[2].cancel()

        tasks = [asyncio.create_task(one(name)) for name in ("a", "waiting", "given", "b")]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert places.taken_now == 0

    run_virtually(run())
    assert order == ["a", "b"]


def test_staleness_is_counted_by_token_over_what_is_trained() -> None:
    def episode(reward: float | None, **agent: Any) -> Any:
        return SimpleNamespace(rows=(ROW,), reward=reward, agent=agent)

    mixed = episode(1.0, weight_version="3", weight_versions=["3", "4", "5"])
    old, broken = episode(0.0, weight_version="3"), episode(None, weight_version="0")
    group: Any = SimpleNamespace(episodes=[mixed, old, broken], rewards=[1.0, 0.0, None])
    batch: Any = SimpleNamespace(kept=[group])
    assert staleness_metrics(batch, 5) == {
        "staleness_mean": pytest.approx((2 + 1 + 0 + 2 + 2 + 2) / 6),
        "staleness_max": 2,
        "staleness_shares": {"0": 1 / 6, "1": 1 / 6, "2": 4 / 6},
    }


def test_no_task_comes_twice_in_a_step_and_replacements_depend_on_the_step_alone() -> None:
    stream = TaskStream(_tasks(3), 1)
    first = StepTasks(stream, 5, 1)  # more than there are
    assert sorted(task.id for _, task in first.next(10)) == ["0", "1", "2"] and first.next(1) == []
    assert stream.at == 5
    ones = [StepTasks(TaskStream(_tasks(20), 1), 2, step).next(8) for step in (1, 1, 2)]
    assert ones[0] == ones[1] and ones[0][:2] == ones[2][:2] and ones[0][2:] != ones[2][2:]
