"""Record a run with a served user, stop the server, and play it again from the cassette and from the log alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, Running
from fakes.wording import Rewords

from muarl_cli.cli import app as program
from muarl_cli.conversation.ends import EndReason
from muarl_cli.records.log import iter_episodes

COMMON = ("rollout", "--tasks", "builtin:retail:dev", "--max-tasks", "4", "--group", "2", "--json")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def _run(capfd: Any, *arguments: str, agent: str = "careful") -> dict[str, Any]:
    code = program.main((*COMMON, "--agent", agent, *arguments))
    captured = capfd.readouterr()
    assert code in (0, 2), captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


def _talks(folder: str) -> dict[tuple[str, int], Any]:
    return {(e.task_id, e.rollout): (e.events, e.end, e.reward) for e in iter_episodes(Path(folder))}


def _record(capfd: Any, *more: str) -> dict[tuple[str, int], Any]:
    with Running(FakeOpenAI(Rewords())) as url:
        served = ("--user-model", "m", "--user-base-url", url, "user.cassette=tape.jsonl")
        _run(capfd, *served, "--out", "live", *more)
    return _talks("live")


PERSONAS = "user.personas={verbosity: {terse: 1, chatty: 1}, style: {plain: 1, lowercase: 1}}"


def test_a_run_is_replayed_from_its_cassette_to_the_byte_with_the_server_gone(capfd: Any) -> None:
    live = _record(capfd, PERSONAS)
    _run(capfd, "--user", "replay", "--user-model", "tape.jsonl", PERSONAS, "--out", "again")
    assert _talks("again") == live and len(live) == 8
    parties = [{(e.task_id, e.rollout): e.user for e in iter_episodes(Path(name))} for name in ("live", "again")]
    for place, before in parties[0].items():
        after = parties[1][place]
        assert (before["backend"], after["backend"]) == ("llm", "replay")
        assert before["persona"] == after["persona"] != "" and before["model"] == after["model"] == "m"
    assert len({user["persona"] for user in parties[0].values()}) > 1, "drawn per rollout"


def test_a_run_is_replayed_from_its_log_to_the_byte(capfd: Any) -> None:
    live = _record(capfd)
    _run(capfd, "--user", "replay", "--user-model", "live", "--out", "again")
    assert _talks("again") == live


@pytest.mark.parametrize("source", ["tape.jsonl", "live"])
def test_another_agent_meets_a_clear_miss_and_never_a_wrong_answer(capfd: Any, source: str) -> None:
    _record(capfd)
    _run(capfd, "--user", "replay", "--user-model", source, "--out", "other", agent="do-nothing")
    ends = [episode.end for episode in iter_episodes(Path("other"))]
    assert ends and all(end.reason is EndReason.USER_FAULT and "miss" in end.detail for end in ends)


def test_a_mixture_draws_per_rollout_and_logs_who_it_was(capfd: Any) -> None:
    with Running(FakeOpenAI(Rewords())) as url:
        served = ("--user", "scripted=0.5,llm=0.5", "--user-model", "m", "--user-base-url", url, PERSONAS)
        _run(capfd, *served, "--out", "mixed")
        _run(capfd, *served, "--out", "twice")
    users = [(e.user["backend"], bool(e.user["persona"])) for e in iter_episodes(Path("mixed"))]
    assert set(users) == {("scripted", False), ("llm", True)}
    assert _talks("mixed") == _talks("twice")


def test_what_is_no_recording_is_refused_before_anything_is_played(capfd: Any) -> None:
    Path("junk.jsonl").write_text("{}\n")
    for source, words in (("junk.jsonl", "no cassette"), ("missing", "no cassette at")):
        arguments = (*COMMON, "--agent", "careful", "--user", "replay", "--user-model", source, "--out", source[:4])
        assert program.main(arguments) in (65, 66)
        assert words in capfd.readouterr().err
