"""A checkout of ACEBench: where it is, its entries, and the process that runs its code.

It is no package, so the checkout is named by `--acebench-dir` or MUARL_ACEBENCH_DIR. Invariant: nothing of it is
imported here; a trial whose process died is a fault, never a result.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.checkouts import WORKERS
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.server import WorldServer

VARIABLE = "MUARL_ACEBENCH_DIR"
CLONE = "git clone https://github.com/ACEBench/ACEBench"
KINDS = ("multi_turn", "multi_step")
LANGUAGES = ("en", "zh")


def use_checkout(folder: str) -> None:
    """Take the checkout that a stage's settings name; "" leaves it to the environment."""
    if folder:
        os.environ[VARIABLE] = folder


def root() -> Path | None:
    """The checkout, None where none is named. Raises `MuarlError` where what is named is no checkout."""
    named = os.environ.get(VARIABLE, "")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not (folder / "data_all" / "data_en" / "data_agent_multi_turn.json").exists():
        raise MuarlError(
            f"{named} is no checkout of ACEBench",
            why="it has no data_all/data_en/data_agent_multi_turn.json",
            next_step=f"{CLONE}, and name the folder with --acebench-dir or {VARIABLE}",
            code=ExitCode.MISSING_INPUT,
        )
    return folder


class Checkout:
    """An opened checkout. Thread-safe: requests are answered one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(WORKERS / "serving.py"), "serve_acebench", str(folder)]
        self.server = WorldServer("acebench", command)
        self._generation = 0
        self._loaded: dict[tuple[str, str], list[Mapping[str, Any]]] = {}

    def entries(self, language: str, kind: str) -> list[Mapping[str, Any]]:
        """The entries of a language and kind, as the worker describes them; loaded once a process."""
        key = (language, kind)
        if key not in self._loaded:
            self._loaded[key] = self.server.load("load", language=language, kind=kind)
            self._generation = self.server.alive
        return self._loaded[key]

    def ready(self) -> int:
        """Which process answers now, with everything loaded in it that the one before knew."""
        if self.server.alive != self._generation or not self._generation:
            for language, kind in self._loaded:
                self.server.load("load", language=language, kind=kind)
            self._generation = self.server.alive
        return self._generation

    @property
    def revision(self) -> dict[str, str]:
        """What has to stand beside every score."""
        if not self.server.alive:
            self.server.ask("hello")
        return {"package": "checkout", "upstream": f"ACEBench@{self.server.hello['revision']}"}


def open_checkout() -> Checkout:
    """The checkout that is named; raises `MuarlError` where none is."""
    folder = root()
    if folder is None:
        raise MuarlError(
            "ACEBench is no package: it is read from a checkout, and none is named",
            next_step=f"{CLONE}, and name the folder with --acebench-dir or {VARIABLE}",
            code=ExitCode.MISSING_INPUT,
        )
    return _opened(folder)


@lru_cache(maxsize=2)
def _opened(folder: Path) -> Checkout:
    return Checkout(folder)
