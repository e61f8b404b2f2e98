"""`muarl review` at a real pseudo-terminal: a page a trajectory, decisions on disk at once, the last word counts."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.test_play import Session

from muarl_cli.cli.app import main
from muarl_cli.records.verdicts import read_verdicts

COUNT = 5


@pytest.fixture
def run(tmp_path: Path) -> Path:
    assert (
        main(["synth-coldstart", "--scenarios", "library", "--count", str(COUNT), "--out", str(tmp_path / "run")]) == 0
    )
    return tmp_path / "run"


@pytest.fixture
def session(run: Path) -> Iterator[Session]:
    opened = Session([sys.executable, "-m", "muarl_cli", "review", str(run), "--reviewer", "ann"], run.parent)
    yield opened
    if opened.process.poll() is None:
        opened.process.kill()


def _accepted(run: Path) -> int:
    return sum(row["accepted"] for row in read_verdicts(run).values())


def test_a_person_goes_through_the_pages_and_has_the_last_word(run: Path, session: Session) -> None:
    page = session.until("q = quit > ")
    assert "1 of 5" in page and "what the user wants" in page and "agent calls" in page and "reward 1" in page
    session.type("a")
    session.until("2 of 5")
    session.until("q = quit > ")
    session.type("r")
    session.until("needs a reason")
    session.until("q = quit > ")
    session.type("r too short for a customer")
    session.until("3 of 5")
    session.until("q = quit > ")
    session.type("s")
    session.until("4 of 5")
    session.until("q = quit > ")
    session.type("q")
    session.until("left: 3")
    assert session.end() == 0
    rejected = [row for row in read_verdicts(run).values() if "person/rejected" in row["codes"]]
    assert len(rejected) == 1 and _accepted(run) == COUNT - 1
    assert rejected[0]["reasons"] == ["person/rejected: ann: too short for a customer"]
    assert rejected[0]["checks"]["person"] == "fail"


def test_a_killed_terminal_loses_no_decision_and_the_run_makes_up_for_the_rejected(run: Path, session: Session) -> None:
    session.until("q = quit > ")
    session.type("r rude")
    session.until("2 of 5")
    os.kill(session.process.pid, signal.SIGKILL)
    session.process.wait(30)
    rows = [json.loads(line) for line in (run / "reviews.jsonl").read_text().splitlines()]
    assert [(row["accepted"], row["reason"]) for row in rows] == [(False, "rude")]
    assert main(["synth-coldstart", "--scenarios", "library", "--count", str(COUNT), "--out", str(run)]) == 0
    assert _accepted(run) == COUNT
    verdict = read_verdicts(run)[rows[0]["episode_id"]]
    assert not verdict["accepted"] and verdict["codes"] == ["person/rejected"]
    with (run / "reviews.jsonl").open("a") as file:
        file.write(json.dumps({"episode_id": rows[0]["episode_id"], "accepted": True, "reason": ""}) + "\n")
    assert main(["synth-coldstart", "--scenarios", "library", "--count", str(COUNT), "--out", str(run)]) == 0
    assert read_verdicts(run)[rows[0]["episode_id"]]["checks"]["person"] == "pass"
