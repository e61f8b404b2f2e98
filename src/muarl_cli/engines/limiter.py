"""How many requests an address gets at once, and when: as many as it takes, and none before it asked for them.

A window of requests in flight, shrunk by a fifth where the address says "too many" (429) and grown by a part of a
request with each reply, so that it is found again within a few round trips. A 429 cuts once a round trip: the requests
that left before the cut tell nothing new. Troubles of the server (5xx) are not a question of how many, and leave the
window as it is. Invariants: never more than the window is in flight; nothing leaves before the moment that a
Retry-After named; requests start in the order they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

CUT, GROWTH = 0.8, 0.4
"""a round trip undoes a cut even where a third of its requests fail: an address that says 429 at random is not starved,
and one that is full is asked for a few too many"""
SLACK = 2
"""a window that is wider than this many times what is in flight is not what the address complains of"""
SMOOTH = 0.1
"""weight of the newest reply in the mean round trip"""


class Clock(Protocol):
    """Time as the limiter and the retries see it, in seconds."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class LoopClock:
    """The running event loop's own time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Limiter:
    """The window of one address, at most `most` requests wide.

    It may be used from one event loop after the other, by one at a time.
    """

    def __init__(self, most: int, clock: Clock | None = None) -> None:
        self.most, self.clock = most, clock or LoopClock()
        self.window = float(most)
        self.in_flight = 0
        self.cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._not_before = self._cut_again = float("-inf")
        self._round_trip = 0.0
        """mean seconds of a reply; 0.0 before the first one"""
        self._timer: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Entered when a request may leave, left when its answer is there."""
        await self._acquire()
        try:
            await self.quiet()  # another request may have heard so since this one's turn came
            yield
        finally:
            self.in_flight -= 1
            self._wake()

    async def quiet(self) -> None:
        """Wait for the moment that the address named, if it named one."""
        while (pause := self._not_before - self.clock.now()) > 0:
            await self.clock.sleep(pause)

    def replied(self, seconds: float) -> None:
        """A request was answered after `seconds`."""
        if not self._round_trip:
            self._round_trip, self._cut_again = seconds, self.clock.now()
        self._round_trip += (seconds - self._round_trip) * SMOOTH
        self.window = min(float(self.most), self.window + GROWTH)
        self._wake()

    def too_many(self) -> None:
        """The address said 429."""
        now = self.clock.now()
        if now >= self._cut_again:
            self.window = max(1.0, min(self.window, SLACK * self.in_flight) * CUT)
            self.cuts += 1
            # before the first reply nobody knows how long a round trip is
            self._cut_again = now + (self._round_trip or float("inf"))

    def wait(self, seconds: float) -> None:
        """The address asked for nothing more in the next `seconds`."""
        self._not_before = max(self._not_before, self.clock.now() + seconds)

    async def _acquire(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot was handed over in the same moment
                self.in_flight -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        """Let those go whose turn it is, now or when the address lets us."""
        if self.clock.now() < self._not_before:
            if self._waiting and (self._timer is None or self._timer.done()):
                self._timer = asyncio.get_running_loop().create_task(self._wake_later())
            return
        while self._waiting and self.in_flight < int(self.window):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    async def _wake_later(self) -> None:
        await self.quiet()
        self._wake()


_OF_ADDRESS: dict[str, Limiter] = {}


def limiter_of(url: str, most: int) -> Limiter:
    """The limiter of an address, one for all who talk to it from this process."""
    return _OF_ADDRESS.setdefault(url, Limiter(most))
