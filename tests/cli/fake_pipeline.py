"""A pipeline that records how it was called: the command line is tested without the stages behind it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muarl_cli.cli.launch import MODULES


@dataclass
class Calls:
    """What the stages were asked to do, and what they answer (`run_with` may print, raise or return)."""

    planned: list[tuple[str, Any]] = field(default_factory=list)
    run: list[tuple[str, Any, Path]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=lambda: {"episodes": 3, "reward": 0.5})
    error: BaseException | None = None
    prints: str = ""


def install(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put recording modules in the place of `muarl_cli.pipeline.*` for one test."""
    calls = Calls()
    for stage, name in MODULES.items():
        module = ModuleType(f"muarl_cli.pipeline.{name}")

        def run(settings: Any, out: Path, talk: Any, stage: str = stage) -> dict[str, Any]:
            calls.run.append((stage, settings, out))
            if calls.prints:
                print(calls.prints)
            if calls.error:
                raise calls.error
            return calls.answer

        def plan(settings: Any, stage: str = stage) -> dict[str, Any]:
            calls.planned.append((stage, settings))
            return {"episodes": 12}

        module.run, module.plan = run, plan  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls
