"""A served teacher that misbehaves: each lapse typed, counted, asked for again, never accepted and never lost."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, Running, Troubles
from fakes.teacher_brain import KINDS, TeacherBrain

from muarl_cli.cli.app import main
from muarl_cli.conversation.ends import EndReason
from muarl_cli.engines import wire
from muarl_cli.records.log import iter_episodes
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.verification.coverage import by_coverage
from muarl_cli.worlds.domain import builtin

DOMAINS = [builtin("retail"), builtin("library")]
TASKS = [(domain, task) for domain in DOMAINS for task in by_coverage(domain.tasks("train"))[:60]]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed requests are tried again at once."""
    monkeypatch.setattr(wire.RetryPolicy, "pause", lambda self, attempt, draw: 0.0)


def _synth(url: str, out: Path, *words: str) -> int:
    teacher = ["--teacher-model", "fake-teacher", "--teacher-base-url", url]
    return main(["synth-coldstart", "--scenarios", "retail,library", *teacher, "--out", str(out), *words])


def _counts(folder: Path) -> tuple[list[Any], dict[str, Any], list[dict[str, Any]]]:
    lapses = folder / "lapses.jsonl"
    rows = [json.loads(line) for line in lapses.read_text().splitlines()] if lapses.exists() else []
    return list(iter_episodes(folder)), read_verdicts(folder), rows


def test_every_reply_of_a_misbehaving_teacher_is_taken_or_written_down(tmp_path: Path) -> None:
    brain = TeacherBrain(TASKS, rate=0.25, again=0.4)
    fake = FakeOpenAI(brain, keep_requests=False)
    with Running(fake) as url:
        assert _synth(url, tmp_path / "run", "--count", "16", "max_attempts=6") == 0
    episodes, verdicts, lapses = _counts(tmp_path / "run")
    spoilt = sum(brain.spoilt.values())
    assert set(brain.spoilt) == set(KINDS) and spoilt >= 60
    assert len(lapses) == spoilt, "each spoilt reply is on disk"
    turns = sum(
        e.actor == "agent" and "greeting" not in e.tags and e.kind in ("say", "call")
        for ep in episodes
        for e in ep.events
    )
    assert turns + spoilt == fake.count, "each reply became a turn or a lapse"
    assert {row["lapse"] for row in lapses} == {"malformed", "empty", "refusal", "written_call"}
    given_up = [e for e in episodes if e.end.reason is EndReason.LIMIT_AGENT]
    assert given_up and all(e.end.detail.startswith("teacher: 3 lapses") for e in given_up)
    assert not any(verdicts[e.episode_id]["accepted"] for e in given_up)
    assert {e.episode_id for e in episodes} == set(verdicts)
    assert all(row["accepted"] or row["reasons"] for row in verdicts.values())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["accepted"] == 16
    assert summary["teacher_lapses"] == dict(sorted(Counter(row["lapse"] for row in lapses).items()))
    mended = [e for ep in episodes for e in ep.events for tag in e.tags if tag.startswith("teacher:")]
    assert mended, "a mended turn says what went before it"
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_a_retry_is_asked_with_a_changed_prompt_and_leaves_no_trace_in_the_history(tmp_path: Path) -> None:
    fake = FakeOpenAI(TeacherBrain(TASKS, rate=0.5, again=0.0))
    with Running(fake) as url:
        assert _synth(url, tmp_path / "run", "--count", "4", "--in-flight", "1") == 0
    bodies = [request["body"] for request in fake.requests]
    retries = [(before, after) for before, after in pairwise(bodies) if _notice(after)]
    assert len(retries) >= 10
    for before, after in retries:
        assert after["messages"][:-1] == before["messages"]
        assert after["temperature"] > before["temperature"] and after["seed"] != before["seed"]
    assert not any(_notice(body, -2) for body in bodies if len(body["messages"]) > 2)


def _notice(body: dict[str, Any], at: int = -1) -> bool:
    message = body["messages"][at]
    return message["role"] == "user" and message["content"].startswith("[notice]")


def test_troubles_of_the_wire_cost_no_demonstration(tmp_path: Path) -> None:
    kinds = ("429", "500", "malformed", "empty", "reset", "filtered", "cut")
    fake = FakeOpenAI(TeacherBrain(TASKS), troubles=Troubles(0.1, kinds, seed=3), keep_requests=False)
    with Running(fake) as url:
        assert _synth(url, tmp_path / "run", "--count", "8") == 0
    episodes, verdicts, _ = _counts(tmp_path / "run")
    assert sum(row["accepted"] for row in verdicts.values()) == 8
    assert {e.episode_id for e in episodes} == set(verdicts)


def test_a_teacher_that_refuses_everything_ends_with_the_reasons_and_a_full_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brain = TeacherBrain(TASKS, rate=1.0, again=1.0, kinds=("refusal",))
    with Running(FakeOpenAI(brain, keep_requests=False)) as url:
        assert _synth(url, tmp_path / "run", "--count", "4", "max_attempts=2") == 65
    assert "state/not_gold 8" in capsys.readouterr().err
    episodes, verdicts, lapses = _counts(tmp_path / "run")
    assert len(episodes) == len(verdicts) == 8 and not any(row["accepted"] for row in verdicts.values())
    assert len(lapses) == 3 * 8


def test_a_teacher_that_stopped_answering_stops_the_run_which_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    dead = FakeOpenAI(TeacherBrain(TASKS), troubles=Troubles(1.0, ("500",)), keep_requests=False)
    with Running(dead) as url:
        assert _synth(url, out, "--count", "4", "max_attempts=4") == 75
    assert "run the same command again" in capsys.readouterr().err
    with Running(FakeOpenAI(TeacherBrain(TASKS), keep_requests=False)) as url:
        assert _synth(url, out, "--count", "4", "max_attempts=4") == 0
    episodes, verdicts, _ = _counts(out)
    assert len({e.episode_id for e in episodes}) == len(episodes) == len(verdicts)
    assert all(e.valid for e in episodes)
