"""Asynchronous training on a virtual clock: any latencies, any bound; nothing too old, nothing lost, nothing twice.

What is real and what is a sleep stands in `fakes/async_world.py`.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.async_world import ROW, World, run, toy_tasks, train
from fakes.virtual_loop import run_virtually
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.scheduler import Places
from muarl_cli.pipeline.lookahead import Lookahead
from muarl_cli.pipeline.rl_batches import StepTasks, TaskStream
from muarl_cli.pipeline.rl_metrics import staleness_metrics


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(1, 7), st.integers(1, 12))
def test_whatever_the_latencies_no_token_is_older_than_the_bound_and_no_episode_trains_twice(
    seed: int, bound: int, steps: int, in_flight: int
) -> None:
    world = run(World(seed, bound, steps, in_flight=in_flight))
    assert all(0 <= lag <= bound for lag in world.lags) and len(world.trained) == steps
    trained = [name for step in world.trained for name in step]
    assert len(trained) == len(set(trained)) and set(trained) <= set(world.kept)
    assert world.most <= in_flight


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_who_is_slow_decides_neither_the_tasks_nor_what_is_trained(seed: int, bound: int) -> None:
    """The same episodes in the same steps, whatever took how long: no length is favoured."""
    worlds = [run(World(seed, bound, 4, in_flight=width)) for width in (1, 4, 100)]
    assert worlds[0].trained == worlds[1].trained == worlds[2].trained
    assert worlds[0].drawn == worlds[1].drawn == worlds[2].drawn


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_bound_of_0_is_the_synchronous_run(seed: int) -> None:
    world = run(World(seed, 0, 4))
    assert set(world.lags) == {0}
    straight = World(seed, 0, 4)

    async def one_after_the_other() -> None:
        for step in range(1, 5):
            straight.steps = step
            await train(straight, step - 1)

    run_virtually(one_after_the_other())
    assert straight.trained == world.trained and straight.kept == world.kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.floats(0.0, 60.0), st.integers(1, 3))
def test_after_a_kill_no_acknowledged_episode_is_held_again_and_none_is_left_out(
    seed: int, bound: int, when: float, every: int
) -> None:
    """Checkpoints every so many steps; the log is what survives. Steps that were trained before the kill, and again
    from the checkpoint, get the very same episodes: they make the same weights again."""
    world = run(World(seed, bound, 6, stop_at=when, faults=0.0))
    before = dict(world.kept)
    first = list(world.trained)
    checkpoint = len(first) // every * every
    again = run(World(seed, bound, 6, kept=dict(before), faults=0.0), checkpoint)
    assert again.trained[: len(first) - checkpoint] == first[checkpoint:]
    assert all(0 <= lag <= bound for lag in again.lags)
    whole = [name for step in [*first[:checkpoint], *again.trained] for name in step]
    assert len(whole) == len(set(whole))
    assert all(again.kept[name] is episode for name, episode in before.items())


@pytest.mark.parametrize("bound", [1, 2])
def test_while_a_step_trains_the_next_ones_go_on_and_no_further(bound: int) -> None:
    begun: list[tuple[int, float]] = []

    async def scene() -> None:
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

    run_virtually(scene())
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

    async def scene() -> None:
        async with Lookahead(3, 0, 0, hold) as ahead:
            ahead.serving(0)
            assert await ahead.of(1) == 1
            await ahead.of(2)

    with pytest.raises(OSError, match="no space"):
        run_virtually(scene())
    assert sorted(ended) == [1, 2, 3, 4]


def test_earlier_steps_go_first_whenever_they_ask_and_equals_in_their_order() -> None:
    order: list[str] = []

    async def scene() -> None:
        places = Places(1)

        async def one(name: str, rank: int) -> None:
            async with places.taken(rank):
                order.append(name)
                await asyncio.sleep(1.0)

        await asyncio.gather(*(one(*who) for who in (("a", 5), ("b", 5), ("c", 5), ("early", 1))))
        assert places.taken_now == 0
        await asyncio.sleep(5.0)
        assert places.busy_seconds() == pytest.approx(4.0)

    run_virtually(scene())
    assert order == ["a", "early", "b", "c"]


def test_a_place_is_not_lost_with_who_is_cancelled_while_waiting_for_it_or_being_given_it() -> None:
    order: list[str] = []

    async def scene() -> None:
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

    run_virtually(scene())
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
    stream = TaskStream(toy_tasks(3), 1)
    first = StepTasks(stream, 5, 1)  # more than there are
    assert sorted(task.id for _, task in first.next(10)) == ["0", "1", "2"] and first.next(1) == []
    assert stream.at == 5
    ones = [StepTasks(TaskStream(toy_tasks(20), 1), 2, step).next(8) for step in (1, 1, 2)]
    assert ones[0] == ones[1] and ones[0][:2] == ones[2][:2] and ones[0][2:] != ones[2][2:]
