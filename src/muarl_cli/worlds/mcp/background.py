"""One event loop in a thread of its own, in which all server processes live.

Servers outlive the event loops of stages and tests, and a grader that is no coroutine can wait for one. Invariant:
whatever happens to the caller's loop, a client is entered and left in the task that owns it, and at the end of the
process every server is told to stop.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
LAST_WORDS = 8.0
"""seconds that servers get to stop at the end of the process; a hung one is killed after four"""


class Background:
    """The loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._at_end: list[Callable[[], Awaitable[None]]] = []
        threading.Thread(target=self.loop.run_forever, name="muarl-mcp", daemon=True).start()
        atexit.register(self._end)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` there. Cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        self._at_end.append(close)

    def _end(self) -> None:
        async def close_all() -> None:
            await asyncio.gather(*(close() for close in self._at_end), return_exceptions=True)

        with suppress(TimeoutError):  # servers see the end of their input and go by themselves
            self.submit(close_all()).result(LAST_WORDS)
        self.loop.call_soon_threadsafe(self.loop.stop)


_LOCK = threading.Lock()
_MADE: list[Background] = []


def background() -> Background:
    """The one of this process, started at first use."""
    with _LOCK:
        if not _MADE:
            _MADE.append(Background())
        return _MADE[0]
