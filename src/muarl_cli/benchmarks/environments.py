"""Isolated environments: a benchmark's own packages in a virtual environment of their own, under the cache folder.

Two versions of a package, or pins that ours could not live with, never meet. Invariant: an environment counts as there
only when its stamp was written, which is the last thing its making does; a half-made one is made again from nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from muarl_cli.benchmarks.provider import home
from muarl_cli.errors import ExitCode, MuarlError

STAMP = "muarl.json"


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its name, and what pip puts in, exactly."""

    name: str
    bare: tuple[str, ...]
    """installed without what they ask for"""
    requirements: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return home() / "benchmarks" / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        stamp = self.folder / STAMP
        return self.python.exists() and stamp.exists() and json.loads(stamp.read_text()) == self._stamp()

    def create(self, say: Callable[[str], None]) -> None:
        """Make it, unless it is there. Raises `MuarlError` where pip fails."""
        if self.ready:
            say(f"{self.name}: is there ({self.folder})")
            return
        say(f"{self.name}: {self.folder}")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(self.folder)], self.name)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", *self.bare], self.name)
        if self.requirements:
            _run([*pip, *self.requirements], self.name)
        (self.folder / STAMP).write_text(json.dumps(self._stamp()))

    def _stamp(self) -> dict[str, list[str]]:
        return {"bare": list(self.bare), "requirements": list(self.requirements)}


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MuarlError(
            f"the environment {name} could not be made",
            where=" ".join(command)[:300],
            why=" | ".join(done.stderr.strip().splitlines()[-3:])[:600],
            next_step="check that the package index can be reached, then run the same command again",
            code=ExitCode.UNAVAILABLE,
        )
