"""What every benchmark offers to `muarl bench`: its domains and splits, what is installed, and a check of its gold.

A benchmark registers by having a module `NAME_provider.py` in this package with a `PROVIDER`; nothing else lists them.
Invariant: `status` never installs, imports or downloads anything of the benchmark's own, and says for each missing
thing the exact command that gets it.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError


@dataclass(frozen=True)
class Status:
    """What of a benchmark is on this machine."""

    present: tuple[str, ...]
    missing: tuple[str, ...] = ()
    how_to_get: tuple[str, ...] = ()
    """commands, one for each missing thing; or why there is none"""

    @property
    def ready(self) -> bool:
        """Whether at least a part can be used."""
        return bool(self.present)


@dataclass(frozen=True)
class GoldCount:
    """A gold replay of one task set through our loop and the benchmark's own scorer, and what became of corrupted
    ones."""

    tasks: int
    passed: int
    corrupted: int
    """replays that leave out the last call that changes the state"""
    corrupted_failed: int
    known_failures: tuple[str, ...] = ()
    """ids whose gold is known not to reach the benchmark's own goal (a defect of the data)"""
    known_unseen: tuple[str, ...] = ()
    """ids whose corrupted replay passes because the benchmark does not look at what is missing (a defect of it)"""
    why: str = ""
    """what the known ones suffer from"""
    scorer_passed: int = 0
    """tasks whose gold the benchmark's scorer passes: through the loop or, for the known failures, handed to it as it
    stands"""
    failures: tuple[str, ...] = ()
    """ids that failed and are not known to"""

    @property
    def as_expected(self) -> bool:
        return not self.failures and self.corrupted == self.corrupted_failed + len(self.known_unseen)

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "passed": self.passed,
            "corrupted": self.corrupted,
            "corrupted_failed": self.corrupted_failed,
            "known_failures": list(self.known_failures),
            "known_unseen": list(self.known_unseen),
            "why": self.why,
            "scorer_passed": self.scorer_passed,
            "failures": list(self.failures),
            "as_expected": self.as_expected,
        }


@dataclass(frozen=True)
class Provider:
    """One benchmark."""

    name: str
    """the source of its task sets: `name:domain:split`"""
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    status: Callable[[], Status]
    gold_check: Callable[[str], Mapping[str, GoldCount]]
    """domain -> by split; raises `MuarlError` where the benchmark is not there"""
    install: Callable[[Callable[[str], None]], None] | None = None
    """makes its isolated environments, telling what it does; None where a person has to (pip, a checkout)"""
    note: str = ""


def providers() -> dict[str, Provider]:
    """All benchmarks by name, found by module name and imported here."""
    package = import_module("muarl_cli.benchmarks")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.endswith("_provider"))
    found = [import_module(f"muarl_cli.benchmarks.{name}").PROVIDER for name in names]
    return {provider.name: provider for provider in found}


def provider_of(name: str) -> Provider:
    """The benchmark of this name; raises `MuarlError` (usage) for an unknown one."""
    known = providers()
    if name not in known:
        raise MuarlError(f"unknown benchmark {name!r}", next_step=f"one of: {', '.join(known)}", code=ExitCode.USAGE)
    return known[name]


def home() -> Path:
    """Where isolated environments are made: MUARL_HOME, else the user's cache folder."""
    own = os.environ.get("MUARL_HOME")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "muarl"
