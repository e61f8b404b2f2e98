"""Many conversations at once, on one event loop.

Invariant: jobs start in the order given, at most `in_flight` at a time, and a finished one makes room at once: there is
no batch barrier, and one slow user never holds up another episode. Results are handed over as they finish; the caller
decides what order means.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

T = TypeVar("T")


async def run_all(
    jobs: Iterable[Callable[[], Awaitable[T]]], in_flight: int, on_done: Callable[[int, T], None] | None = None
) -> list[T]:
    """Run `jobs`, return their results in the order given. The first exception cancels the rest and is raised.

    `on_done(index, result)` is called on the event loop as each one finishes.
    """
    waiting = iter(enumerate(jobs))
    results: dict[int, T] = {}

    async def worker() -> None:
        for index, job in waiting:
            results[index] = await job()
            if on_done:
                on_done(index, results[index])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, in_flight)):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return [results[index] for index in sorted(results)]


class Places:
    """Room for conversations that several callers of `run_all` share: at most `limit` at once.

    Who asks with the lower rank goes first, whenever it asks; equals go in the order in which they asked. Nobody waits
    while a place is free.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = max(1, limit), 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._busy, self._since = 0.0, 0.0

    @property
    def taken_now(self) -> int:
        return self._taken

    def busy_seconds(self) -> float:
        """Seconds of the event loop's clock, so far, in which at least one place was taken."""
        return self._busy + (asyncio.get_running_loop().time() - self._since if self._taken else 0.0)

    @asynccontextmanager
    async def taken(self, rank: int) -> AsyncIterator[None]:
        """Wait for a place and hold it within the block."""
        if self._taken < self._limit:
            self._take()
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # the place was handed over while this one was being cancelled
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    def _take(self) -> None:
        if not self._taken:
            self._since = asyncio.get_running_loop().time()
        self._taken += 1

    def _leave(self) -> None:
        """Hand the place to the next who still waits, or give it back."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1
        if not self._taken:
            self._busy += asyncio.get_running_loop().time() - self._since


def _first(error: BaseException) -> BaseException:
    """The first single error inside nested groups: one cause is what a person can mend."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
