"""A fault injector: the N-th write, flush, rename, cut or open fails, once or from then on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = ("write", "fsync", "replace", "rename", "ftruncate", "open", "mkdir", "chmod")


class Crash(BaseException):
    """Stands for the end of the process: nothing in the code under test may catch and survive it."""


@contextmanager
def fault(
    nth: int, error: Callable[[], BaseException], lasting: bool = False, short: bool = False
) -> Iterator[list[str]]:
    """Within the block, the `nth` (from 1) system call of `CALLS` raises `error()`; with `lasting` all later ones too.

    With `short`, a failing write first writes half of its bytes. Yields the names of the calls that failed.
    """
    real = {name: getattr(os, name) for name in CALLS}
    seen, failed = [0], []

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] == nth or (lasting and seen[0] > nth):
                failed.append(name)
                if name == "write" and short and len(args[1]) > 1:
                    real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                raise error()
            return real[name](*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name))
    try:
        yield failed
    finally:
        for name, function in real.items():
            setattr(os, name, function)
