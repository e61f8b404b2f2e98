"""A watchdog ends a real run with the exit code of its reaction, and the run goes on to the same artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.stages import Place, hashes

from muarl_cli.errors import ExitCode
from muarl_cli.records.checkpoint import load_latest

PLANTED = "alarm_at.mismatch=1e-15"
"""a bound that float rounding crosses in every step"""


@pytest.mark.slow
def test_a_paused_run_and_a_stopped_one_go_on_to_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for stage in ("synth-coldstart", "sft", "rl-train"):
        place.run(stage)
    wanted = hashes(place.folder("rl-train"))
    words = [word if word != "runs/rl-train" else "runs/paused" for word in place.command("rl-train")[1:]]
    words += ["save_every=0"]
    for step in (1, 2):
        paused = place.muarl(*words, PLANTED, "watchdogs.mismatch=pause", code=int(ExitCode.TEMPORARY))
        assert "watchdog mismatch" in paused.stderr and "watchdogs.mismatch=warn" in paused.stderr
        newest = load_latest(place.folder("paused"), pytest.fail)
        assert newest is not None and newest.step == step
    stopped = place.muarl(*words, PLANTED, "watchdogs.mismatch=stop", code=int(ExitCode.GATE_FAILED))
    assert "stopped this run" in stopped.stderr
    newest = load_latest(place.folder("paused"), pytest.fail)
    assert newest is not None and newest.step == 2, "a stopped run takes no further step"
    place.muarl(*words, PLANTED, "trackers=[wandb]")
    found = hashes(place.folder("paused"))
    for name in ("checkpoint", "summary.json"):
        assert found[name] == wanted[name], name
    assert found["episodes"] == wanted["episodes"]
