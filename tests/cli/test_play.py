"""`muarl play`: a person at a real pseudo-terminal, or a script through a pipe, makes an ordinary episode."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.records.log import iter_episodes
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import value_text

RETAIL = builtin("retail")
TASK = next(
    task
    for task in RETAIL.tasks("dev")
    if task.writes and [(g.intent, g.change, g.refused) for g in goals_of(task.brief)] == [("cancel", None, "")]
)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "muarl_cli", "play", *arguments]


class Session:
    """A program on a pseudo-terminal: what it shows, and what is typed."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        master, slave = pty.openpty()
        self.master = master
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            start_new_session=True,
            # a suite that was started in the background ignores Ctrl-C, and its children would inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.shown = ""

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """What was shown up to the next match, which is consumed."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    piece = os.read(self.master, 65536)
                except OSError:  # the other side is closed
                    piece = b""
                assert piece, f"it ended without {pattern!r}: {self.shown!r}"
                self.shown += piece.decode()
        text, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return text

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def end(self) -> int:
        code = self.process.wait(60)
        os.close(self.master)
        return code


@pytest.fixture
def terminal(tmp_path: Path) -> Any:
    opened: list[Session] = []

    def open_(*arguments: str) -> Session:
        opened.append(Session(_command(*arguments), tmp_path))
        return opened[-1]

    yield open_
    for session in opened:
        if session.process.poll() is None:
            session.process.kill()


def _episode(folder: Path) -> Any:
    (episode,) = iter_episodes(folder)
    return episode


def test_a_person_plays_the_user_at_a_terminal(terminal: Callable[..., Session], tmp_path: Path) -> None:
    (goal,) = goals_of(TASK.brief)
    session = terminal("--scenario", "retail", "--task", TASK.id, "--as", "user", "--out", "sitting")
    brief = session.until("you> ")
    assert value_text(goal.slots["order_id"]) in brief and "agent: hello" in brief
    facts = " ".join(f"{name} {value_text(value)}" for name, value in goal.slots.items())
    session.type(f"hello, i want to cancel an order. {facts}")
    asked = session.until("you> ")
    assert "shall i go ahead?" in asked and "agent:" in asked
    session.type("yes, please")
    session.until("you> ")
    session.type("/stop")
    session.until("ended: user_stop")
    session.until("reward: ")
    assert session.end() == 0
    episode = _episode(tmp_path / "sitting")
    assert episode.user["backend"] == "human" and episode.end.reason is EndReason.USER_STOP and episode.valid
    assert [e.text for e in episode.events if e.actor is Actor.USER][1] == "yes, please"
    assert any(e.kind is Kind.CALL and e.call.name == "cancel_order" for e in episode.events)


def test_a_person_plays_the_agent_at_a_terminal(terminal: Callable[..., Session], tmp_path: Path) -> None:
    session = terminal("--scenario", "retail", "--task", TASK.id, "--as", "agent", "--out", "sitting")
    session.until("user: .*you> |you> ")
    session.type("/tools")
    assert "cancel_order(order_id, reason)" in session.until("you> ")
    for name, arguments in ((call.name, call.arguments) for call in TASK.gold):
        session.type(f"/call {name} {json.dumps(dict(arguments))}")
        session.until("result: (.|\n)*you> ")
    session.type("/call no_such_tool a=1")
    assert "unknown tool" in session.until("you> ")
    session.type("it has been done. anything else?")
    session.until("ended: user_stop, reward")
    assert session.end() == 0
    episode = _episode(tmp_path / "sitting")
    assert episode.agent["kind"] == "human" and episode.reward == 1 and episode.user["backend"] == "scripted"


def test_ctrl_c_ends_it_with_a_hint_and_keeps_the_folder_good(terminal: Callable[..., Session], tmp_path: Path) -> None:
    session = terminal("--out", "sitting")
    session.until("you> ")
    os.killpg(session.process.pid, 2)
    session.until("interrupted")
    assert session.end() == 130
    assert list(iter_episodes(tmp_path / "sitting")) == [] if (tmp_path / "sitting/episodes.jsonl").exists() else True


def _piped(tmp_path: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), input=typed, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )


def test_a_script_through_a_pipe_plays_too_and_stdout_is_one_json_document(tmp_path: Path) -> None:
    done = _piped(tmp_path, "hi\n/stop\n", "--scenario", "library", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["end"] == "user_stop" and result["out"] == "runs/play-1"
    episode = _episode(tmp_path / "runs/play-1")
    assert [e.text for e in episode.events if e.actor is Actor.USER] == ["hi", ""]
    again = _piped(tmp_path, "hi\n/stop\n", "--scenario", "library", "--json")
    assert json.loads(again.stdout)["out"] == "runs/play-2", "each sitting has a folder of its own"


def test_a_person_who_leaves_makes_an_invalid_episode_and_no_failure(tmp_path: Path) -> None:
    done = _piped(tmp_path, "hi\n", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 2 and not result["valid"] and result["reward"] is None
    assert "left" in result["detail"]


def test_an_unknown_task_or_scenario_is_a_usage_error_with_an_example(tmp_path: Path) -> None:
    done = _piped(tmp_path, "", "--task", "nope")
    assert done.returncode == 64 and "retail-dev-" in done.stderr
    assert _piped(tmp_path, "", "--scenario", "bakery").returncode == 64
    assert "has no use" in _piped(tmp_path, "", "--as", "agent", "--agent", "careful").stderr


@pytest.mark.parametrize(
    ("part", "flag"),
    [("agent", "--temperature=0.5"), ("agent", "--base-url=http://x"), ("user", "--user-base-url=http://x")],
)
def test_a_flag_of_the_party_that_a_person_plays_is_refused(part: str, flag: str, capfd: Any) -> None:
    from muarl_cli.cli.app import main

    assert main(["play", "--as", part, flag]) == 64
    assert f"{flag.split('=')[0]} has no use" in capfd.readouterr().err


def test_a_wrong_value_of_play_names_the_flag_that_gave_it(capfd: Any) -> None:
    from muarl_cli.cli.app import main

    assert main(["play", "--max-usd", "-1"]) != 0
    assert "where: flag --max-usd\n" in capfd.readouterr().err


def test_escape_sequences_of_a_model_never_reach_the_terminal() -> None:
    from muarl_cli.plain_text import clean
    from muarl_cli.users.human import Terminal

    shown: list[str] = []
    Terminal(shown.append, clean).show("agent", "ok\x1b[2J\x1b]0;title\x07\rnext\nline")
    assert "".join(shown) == "agent: oknext\nagent: line\n"


@pytest.mark.parametrize(
    ("text", "arguments", "problem"),
    [
        ("order_id=0042 count=3", {"order_id": "0042", "count": 3}, ""),
        ('{"a": 1}', {"a": 1}, ""),
        (
            "address.street='45 oak street' address.city=porto",
            {"address": {"street": "45 oak street", "city": "porto"}},
            "",
        ),
        ("order_id", {}, "not key=value"),
        ("a=1 a.b=2", {}, "nests"),
        ("'open", {}, "cannot read"),
    ],
)
def test_calls_typed_by_hand_take_the_types_of_the_schema(text: str, arguments: Any, problem: str) -> None:
    from muarl_cli.agents.human import parse_call
    from muarl_cli.conversation.events import ToolClass

    properties = {"order_id": {"type": "string"}, "count": {"type": "integer"}}
    found, why = parse_call(text, ToolSpec("t", "", {"type": "object", "properties": properties}, ToolClass.READ))
    assert (found, problem in why) == (arguments, True) and bool(why) is bool(problem)
