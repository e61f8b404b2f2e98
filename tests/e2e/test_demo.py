"""`examples/demo.py` at the smallest size: what it leaves has the agreed form, and a second start adds nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.stages import PROFILE

from muarl_cli.records.lineage import read_lineage

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"do_nothing", "transfer_only", "base", "sft", "sft_longer", "rl"}


def _demo(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--profile", str(PROFILE), "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=600, check=False)


@pytest.mark.slow
def test_the_demo_runs_the_five_commands_and_leaves_its_figures_in_the_agreed_form(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = _demo(out)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((out / "summary.json").read_text())
    assert set(said) == {"seconds", "peak_mb", "tasks", "scores", "differences"}
    assert said["tasks"] == 6 and said["seconds"] > 0 and 50 < said["peak_mb"] < 4096
    assert set(said["scores"]) == ROWS
    for score in said["scores"].values():
        assert set(score) == {"mean", "low", "high", "write_tasks_only"}
        assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
    assert set(said["differences"]) == {"sft_minus_base", "rl_minus_sft", "rl_minus_sft_longer"}
    for name, gain in said["differences"].items():
        after, before = name.split("_minus_")
        assert gain["mean"] == pytest.approx(said["scores"][after]["mean"] - said["scores"][before]["mean"])
        assert gain["low"] <= gain["mean"] <= gain["high"]

    commands = [line for line in done.stdout.splitlines() if line.startswith("$ muarl ")]
    stages = [line.split()[2] for line in commands]
    assert stages[:5] == ["synth-coldstart", "sft", "rollout", "rl-train", "eval"]
    base = read_lineage(out / "sft" / "base")
    assert base is not None and not base.trained_on()
    costs = json.loads((out / "commands.json").read_text())
    assert all(cost["done"] and cost["peak_mb"] > 0 for cost in costs.values())

    (out / "coldstart" / "settings.yaml").write_text("# muarl synth-coldstart, run 0123\nseed: 5\n")
    stopped = _demo(out)
    assert stopped.returncode == 78 and "next:" in stopped.stderr, "another run's folder is never written over"
    assert json.loads((out / "commands.json").read_text()) == costs, "what was done before is not counted again"
