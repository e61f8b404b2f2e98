"""Time that passes only while somebody sleeps."""

from __future__ import annotations

import asyncio


class SteppedClock:
    """A `Clock` for tests; `pauses` are the sleeps asked for."""

    def __init__(self) -> None:
        self.time = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)
