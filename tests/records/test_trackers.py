"""Trackers get every number, and none of them can end a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muarl_cli.records.trackers import TRACKERS, Trackers

ROW = {"step": 3, "reward": 0.5, "ends": {"user_stop": 4}, "not_applied": ["x"], "kl": None, "last": True}
NUMBERS = {"step": 3.0, "reward": 0.5, "ends/user_stop": 4.0}


class _Package(ModuleType):
    """Has the interface that wandb and trackio share; raises at `breaks_at`."""

    def __init__(self, breaks_at: str = "") -> None:
        super().__init__("wandb")
        self.told: list[Any] = []
        self.breaks_at = breaks_at

    def _do(self, what: str, *told: Any) -> None:
        if what == self.breaks_at:
            raise ConnectionError("no route")
        self.told.append((what, *told))

    def init(self, **where: Any) -> None:
        self._do("init", where["project"], where["name"], where["resume"])

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._do("log", step, numbers)

    def finish(self) -> None:
        self._do("finish")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_every_number_of_a_row_and_is_closed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _Package()
    monkeypatch.setitem(sys.modules, name, package)
    warned: list[str] = []
    with Trackers([name], tmp_path, "run7", warned.append) as trackers:
        trackers.log(3, ROW)
    assert package.told == [("init", "muarl", "run7", "allow"), ("log", 3, NUMBERS), ("finish",)] and not warned


@pytest.mark.parametrize("breaks_at", ["init", "log", "finish"])
def test_a_tracker_that_raises_is_one_warning_and_the_others_go_on(
    breaks_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = _Package(breaks_at), _Package()
    monkeypatch.setitem(sys.modules, "wandb", broken)
    monkeypatch.setitem(sys.modules, "trackio", whole)
    warned: list[str] = []
    with Trackers(["wandb", "trackio"], tmp_path, "run7", warned.append) as trackers:
        trackers.log(1, ROW)
        trackers.log(2, ROW)
    assert len(warned) == 1 and "wandb" in warned[0] and "no route" in warned[0]
    assert [told[0] for told in whole.told] == ["init", "log", "log", "finish"]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_one_warning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "trackio", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    warned: list[str] = []
    with Trackers([name], tmp_path, "run7", warned.append) as trackers:
        trackers.log(1, ROW)
    assert len(warned) == 1 and name in warned[0]


def test_tensorboard_files_hold_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional extra: pip install 'muarl-cli[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    warned: list[str] = []
    with Trackers(["tensorboard"], tmp_path, "run7", warned.append) as trackers:
        trackers.log(1, ROW)
        trackers.log(2, ROW | {"reward": 0.75})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.5), (2, 0.75)] and not warned
