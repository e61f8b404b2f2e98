"""`muarl status`: while a run is written, after it was killed, when it is done. It changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reports.demo_runs import play
from scoring.episode_maker import make_episode

from muarl_cli.cli import app as program
from muarl_cli.conversation.ends import EndReason
from muarl_cli.errors import ExitCode
from muarl_cli.records.ledger import Ledger
from muarl_cli.records.log import EpisodeLog
from muarl_cli.records.run import RunFolder


@pytest.fixture
def status(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(folder: Path, *more: str) -> dict[str, Any]:
        capfd.readouterr()
        assert program.main(["status", str(folder), "--json", *more]) == 0
        return dict(json.loads(capfd.readouterr().out))

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_finished_and_looking_changes_nothing(status: Any, tmp_path: Path) -> None:
    folder = play(tmp_path / "run", "careful")
    before = contents(folder)
    found = status(folder)
    assert (found["state"], found["episodes"], found["planned"], found["valid"]) == ("finished", 16, 16, 16)
    assert (found["floor_episodes"], found["reward"], found["faults"], found["next_step"]) == (16, 1, {}, "")
    assert contents(folder) == before


def test_faults_steps_and_spend_are_read_while_the_run_is_written(status: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ledger = Ledger(folder / "spend.json", 5.0)
    with RunFolder.open(folder, "rl-train", {"seed": 1}, free=()) as run, EpisodeLog.open(folder) as log:
        log.append_many([make_episode("a", 1.0), make_episode("b", None, reason=EndReason.USER_FAULT)])
        run.log_metrics(1, {"reward": 0.25})
        run.log_metrics(2, {"reward": 0.5})
        ledger.settle(ledger.reserve(0.5), 0.25)
        ledger.reserve(1.0)
        found = status(folder)
    assert found["state"] == "running" and str(found["holder"]).startswith("process ")
    assert (found["episodes"], found["valid"], found["faults"]) == (2, 1, {"user_fault": 1})
    assert (found["step"], found["last_step"]["reward"]) == (2, 0.5)
    assert (found["spent_usd"], found["reserved_usd"]) == (0.25, 1)
    assert status(folder)["state"] == "stopped"


def test_a_killed_run_is_stopped_not_running_and_a_torn_tail_is_counted(status: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from scoring.episode_maker import make_episode\n"
        "from muarl_cli.records.log import EpisodeLog; from muarl_cli.records.run import RunFolder\n"
        "folder = Path(sys.argv[1]); run = RunFolder.open(folder, 'eval', {'seed': 1}, free=())\n"
        "log = EpisodeLog.open(folder)\n"
        "log.append(make_episode('a', 1.0)); print('ready', flush=True); time.sleep(600)"
    )
    tests = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code, folder, tests], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    running = status(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert running["state"] == "running" and f"process {process.pid} " in running["holder"]
    with (folder / "episodes.jsonl").open("ab") as file:
        file.write(b'{"schema":"muarl.episode/1.0","epis')
    before = contents(folder)
    found = status(folder)
    assert (found["state"], found["episodes"], found["torn"]) == ("stopped", 1, 1)
    assert "same command again" in found["next_step"] and contents(folder) == before
    assert found["last_write"] <= time.time()


def test_what_is_no_run_is_explained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["status", str(tmp_path)]) == ExitCode.MISSING_INPUT
    assert "muarl ls" in capfd.readouterr().err
