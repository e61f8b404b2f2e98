"""The scheduler: no batch barrier, results in order, one exception cancels the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fakes.talks import AgentOf, UserOf, WorldOf, hold

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.loop import Transcript
from muarl_cli.conversation.protocols import AgentTurn, UserTurn
from muarl_cli.conversation.scheduler import run_all

STOP = UserTurn("bye", EndReason.USER_STOP)


async def test_one_frozen_user_does_not_hold_up_the_others() -> None:
    finished: list[int] = []
    thaw = asyncio.Event()

    class Frozen(UserOf):
        async def respond(self, news: object) -> UserTurn:  # type: ignore[override]
            await thaw.wait()
            return STOP

    def episode(number: int) -> Callable[[], Awaitable[Transcript]]:
        user = Frozen(STOP) if number == 0 else UserOf(UserTurn("x"), STOP)
        return lambda: hold(AgentOf(AgentTurn("hm")), user, WorldOf())

    def done(index: int, _: Transcript) -> None:
        finished.append(index)
        if len(finished) == 29:  # only when all the others are through does the frozen one go on
            thaw.set()

    results = await asyncio.wait_for(run_all([episode(n) for n in range(30)], 2, done), 20)
    assert finished[-1] == 0 and sorted(finished) == list(range(30))
    assert all(talk.end.reason is EndReason.USER_STOP for talk in results)


async def test_results_come_in_the_order_given_whatever_the_order_of_finishing() -> None:
    gates = [asyncio.Event() for _ in range(5)]
    gates[4].set()

    def job(number: int) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            await gates[number].wait()
            if number:
                gates[number - 1].set()
            return number

        return run

    finished: list[int] = []
    results = await asyncio.wait_for(run_all([job(n) for n in range(5)], 5, lambda i, _: finished.append(i)), 20)
    assert finished == [4, 3, 2, 1, 0]
    assert results == [0, 1, 2, 3, 4]


async def test_never_more_than_in_flight_run_at_once_and_a_finished_one_makes_room() -> None:
    running = 0
    peak = 0

    async def job() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    await run_all([job] * 50, 4)
    assert peak == 4


async def test_jobs_are_taken_from_an_endless_source_only_as_there_is_room() -> None:
    taken = 0

    async def job() -> None:
        await asyncio.sleep(0)

    def source() -> object:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield job
        assert taken == 20

    assert len(await run_all(source(), 3)) == 20  # type: ignore[arg-type]


async def test_the_first_exception_cancels_the_rest_and_is_raised() -> None:
    cancelled: list[bool] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def broken() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):  # the cause itself, not a group of everything that fell with it
        await asyncio.wait_for(run_all([endless, endless, broken], 3), 20)
    assert cancelled == [True, True]
