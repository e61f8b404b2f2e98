"""A watchdog ends a real run with the exit code of its reaction, and the run goes on to the same artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.stages import Place, hashes

from muarl_cli.errors import ExitCode
from muarl_cli.records.checkpoint import load_latest
from muarl_cli.records.log import iter_episodes

PLANTED = ("alarm_at.window=1", "alarm_at.entropy=1.0000001")
"""bounds that the second step with an update crosses: its entropy is never quite that of the first"""


@pytest.mark.slow
def test_a_paused_run_and_a_stopped_one_go_on_to_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for stage in ("synth-coldstart", "sft", "rl-train"):
        place.run(stage)
    straight, own = place.folder("rl-train"), place.folder("paused")
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    step = [row["step"] for row in rows if "entropy" in row][1]
    words = [word if word != "runs/rl-train" else "runs/paused" for word in place.command("rl-train")[1:]]
    words += ["save_every=0", *PLANTED]
    paused = place.muarl(*words, "watchdogs.entropy=pause", code=int(ExitCode.TEMPORARY))
    assert "watchdog entropy" in paused.stderr and "watchdogs.entropy=warn" in paused.stderr
    assert _newest(own) == step, "the checkpoint is written though none was due"
    stopped = place.muarl(*words, "watchdogs.entropy=stop", code=int(ExitCode.GATE_FAILED))
    assert "stopped this run" in stopped.stderr and _newest(own) == step, "a stopped run takes no further step"
    place.muarl(*words)
    wanted, found = hashes(straight), hashes(own)
    assert found["checkpoint"] == wanted["checkpoint"]
    assert [e.end for e in iter_episodes(own)] == [e.end for e in iter_episodes(straight)]


def _newest(folder: Path) -> int:
    newest = load_latest(folder, pytest.fail)
    assert newest is not None
    return newest.step
