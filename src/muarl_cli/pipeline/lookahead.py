"""Conversations of the coming steps, held while one trains: bounded staleness by order, not by throwing away.

Step s is trained by weights that s - 1 updates have made, so its conversations may begin as soon as the engines have
those of s - 1 - bound updates, and what they draw is at most `bound` updates old when it is trained. Invariants: no
conversation begins that could end up older; none is left out because it was slow, which would teach from short ones
alone; steps are trained in their order, each with its own tasks; with a bound of 0 a step begins when the one before
is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Lookahead(Generic[T]):
    """Holds `hold(step)` for the steps after `trained`, up to `last` (0: there is no last one). `hold` is called in
    the order of steps. Leaving it cancels what is under way: what is on disk by then is found again."""

    def __init__(self, bound: int, trained: int, last: int, hold: Callable[[int], Awaitable[T]]) -> None:
        self._bound, self._last, self._hold = bound, last, hold
        self._begun = trained
        self._running: dict[int, asyncio.Task[T]] = {}

    def serving(self, version: int) -> None:
        """The engines draw with the weights after `version` updates: begin every step that this allows."""
        reach = version + 1 + self._bound
        while self._begun < (min(reach, self._last) if self._last else reach):
            self._begun += 1
            self._running[self._begun] = asyncio.ensure_future(self._hold(self._begun))

    async def of(self, step: int) -> T:
        """What `hold(step)` found. Raises what it raised."""
        return await self._running.pop(step)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
