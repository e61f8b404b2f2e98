"""The OpenMP workers of a thread that multiplies, given back when it is done.

OpenMP gives every thread that computes a team of workers and keeps it. As soon as the teams of a process have more
threads than the machine has cores, GNU's workers no longer spin between two operations but sleep, and each small
operation waits for somebody to wake up: on two cores an engine drew half as fast once the main thread had trained.
Invariant: threads that take turns at computing hold one team at a time, if each lets go of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_SOFT = 1
"""omp_pause_soft of OpenMP 5.0: the workers end, settings stay, the next parallel operation starts new ones"""


def computed(work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)` in a thread that lets go afterwards."""
    try:
        return work(*arguments)
    finally:
        let_go()


def let_go() -> None:
    """End the workers of the calling thread; they come back with its next operation, within 0.1 ms. No effect where the
    process has no OpenMP of version 5 or later."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT)


@cache
def _pause() -> Callable[[int], int] | None:
    import torch  # noqa: F401  brings the OpenMP library that is meant

    try:
        found: Callable[[int], int] = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError):
        return None
    return found
