"""Many conversations at once, on one event loop.

Invariant: jobs start in the order given, at most `in_flight` at a time, and a finished one makes room at once: there is
no batch barrier, and one slow user never holds up another episode. Results are handed over as they finish; the caller
decides what order means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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


def _first(error: BaseException) -> BaseException:
    """The first single error inside nested groups: one cause is what a person can mend."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
