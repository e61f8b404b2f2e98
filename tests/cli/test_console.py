"""Talk and data: nothing untrusted reaches the terminal alive, progress is quiet where it should be."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.cli import console
from muarl_cli.cli.console import Talk, clean

PAYLOADS = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31m",
    "\x1bP+q544e\x1b\\",
    "good\rbad",
    "\u202egnp.exe",
    "\u2066\u2069\u200f",
    "a\x08\x08b",
    "\x7f\x00\x07",
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text() | st.sampled_from(PAYLOADS).flatmap(lambda p: st.text().map(lambda t: t + p + t)))
def test_no_control_character_survives_cleaning(text: str) -> None:
    plain = clean(text)
    assert not [c for c in plain if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2028"]
    assert clean(plain) == plain
    assert "\n" not in clean(text, one_line=True)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_left_alone(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_do_not_reach_the_terminal(payload: str) -> None:
    out, err = _Terminal(), _Terminal()
    talk = Talk(out=out, err=err)
    talk.say(f"agent: {payload}")
    talk.show(f"text {payload}")
    talk.result({"text": payload, payload: 1})
    for stream in (out, err):
        assert not set(stream.getvalue()) & set("\x1b\x9b\x07\r\x08\x00\u202e")


def test_rich_markup_in_untrusted_text_is_text() -> None:
    out, err = io.StringIO(), io.StringIO()
    talk = Talk(out=out, err=err)
    talk.show("[bold]x[/bold] [link=http://evil]y[/link] :smile:")
    talk.say("[red]z[/red]")
    assert out.getvalue() == "[bold]x[/bold] [link=http://evil]y[/link] :smile:\n"
    assert err.getvalue() == "[red]z[/red]\n"


def test_result_is_one_json_document_or_one_line_a_figure() -> None:
    data = {"score": {"mean": 0.123456, "n": 3}, "names": ["a"], "none": None, "nan": float("nan")}
    out = io.StringIO()
    Talk(json=True, out=out).result(data)
    assert json.loads(out.getvalue()) == {
        "score": {"mean": 0.123456, "n": 3},
        "names": ["a"],
        "none": None,
        "nan": None,
    }
    out = io.StringIO()
    Talk(out=out).result(data)
    assert out.getvalue().splitlines() == ["score.mean: 0.1235", "score.n: 3", 'names: ["a"]', "none: ", "nan: "]


def test_with_json_tables_are_talk() -> None:
    out, err = io.StringIO(), io.StringIO()
    Talk(json=True, out=out, err=err).show("table")
    assert (out.getvalue(), err.getvalue()) == ("", "table\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_progress_off_a_terminal_is_a_plain_line_every_ten_seconds(clock: list[float]) -> None:
    err = io.StringIO()
    with Talk(err=err).progress(240, "episodes") as progress:
        for _ in range(240):
            clock[0] += 0.125
            progress.advance(reward=0.51234, note="\x1b[31mred")
    lines = err.getvalue().splitlines()
    assert len(lines) == 3, "thirty seconds"
    assert lines[0].startswith("episodes: 80/240  10 s  reward 0.5123  note red")


def test_progress_under_a_second_is_silent(clock: list[float]) -> None:
    for stream in (io.StringIO(), _Terminal()):
        with Talk(err=stream).progress(10, "quick") as progress:
            for _ in range(10):
                clock[0] += 0.05
                progress.advance()
        assert stream.getvalue() == ""


def test_progress_on_a_terminal_is_a_bar(clock: list[float]) -> None:
    err = _Terminal()
    with Talk(err=err).progress(10, "episodes [bold]") as progress:
        for _ in range(10):
            clock[0] += 0.5
            progress.advance(faults=1)
    assert "episodes [bold]" in err.getvalue() and "10/10" in err.getvalue()


def test_progress_counts_what_was_done_whatever_happens() -> None:
    with pytest.raises(ValueError), Talk(err=io.StringIO()).progress(3, "x") as progress:
        progress.advance(2)
        raise ValueError
    assert progress.done == 2


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    from rich.text import Text

    out = _Terminal()
    Talk(out=out).show(Text("warm", style="red"))
    assert out.getvalue() == "warm\n"


def test_what_is_watched_is_shown_while_nothing_advances(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_EVERY", "LINE_EVERY", "QUIET_FOR"):
        monkeypatch.setattr(console, name, 0.001)
    shown = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if "calls 7" in text:
                shown.set()
            return super().write(text)

    stream = Stream()
    with Talk(err=stream).progress(240, "episodes") as progress:
        progress.watch(lambda: {"calls": 7, "note": "\x1b[31mred"})
        assert shown.wait(20)
    assert "episodes: 0/240" in stream.getvalue() and "\x1b" not in stream.getvalue()
    written = len(stream.getvalue())
    assert not [thread for thread in threading.enumerate() if thread.name == "muarl-progress"]
    assert len(stream.getvalue()) == written
