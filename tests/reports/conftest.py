"""Runs that several tests of reports look at: played once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reports.demo_runs import hostile_run, judge_all, play

from muarl_cli.reports.run_view import RunView, load_runs


def _verdicts(episode: Any) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Hasty agents write without asking: its writes break a rule, at the event of the write."""
    outcome = "pass" if episode.reward == 1 else "fail"
    writes = [e.i for e in episode.events if e.call and e.call.writes]
    broken = writes if episode.agent["model"] == "hasty" else []
    findings = [
        {"rule": "confirm_before_write", "layer": "policy", "verdict": "fail", "at": at, "why": "never asked"}
        for at in broken
    ]
    layers = {"policy": "fail" if broken else "pass", "communication": "na", "safety": "pass", "recovery": "na"}
    return {"outcome": outcome, **layers}, findings


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    found = {agent: play(root / agent, agent) for agent in ("careful", "hasty")}
    for folder in found.values():
        judge_all(folder, _verdicts)
    return found | {"hostile": hostile_run(root / "hostile")}


@pytest.fixture(scope="session")
def runs(folders: dict[str, Path]) -> list[RunView]:
    return load_runs([folders["careful"], folders["hasty"]])
