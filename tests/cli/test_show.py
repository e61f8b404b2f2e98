"""`muarl show`: lists, transcripts, and text that cannot reach the terminal."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from reports.demo_runs import hostile_run, play

from muarl_cli.errors import ExitCode
from muarl_cli.reports.run_view import load_run

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("show") / "runs"
    play(root / "hasty", "hasty")
    hostile_run(root / "hostile")
    return root


def test_a_run_is_listed_and_filtered(muarl: Any, runs: Path) -> None:
    view = load_run(runs / "hasty")
    rows = json.loads(muarl("show", "runs/hasty", "--limit", "0", "--json")[1])["episodes"]
    assert [row["id"] for row in rows] == [episode.episode_id for episode in view.episodes]
    lost = json.loads(muarl("show", "runs/hasty", "--where", "reward=0,stage=eval", "--limit", "0", "--json")[1])
    wanted = [e.episode_id for e in view.own if e.reward == 0]
    assert [row["id"] for row in lost["episodes"]] == wanted
    text = muarl("show", "runs/hasty", "--limit", "2")[1]
    assert f"{len(view.episodes) - 2} more; --limit 0 shows all" in text


def test_a_transcript_is_found_by_the_beginning_of_an_id(muarl: Any, runs: Path) -> None:
    episode = load_run(runs / "hasty").own[0]
    for words in (("show", episode.episode_id[:10]), ("show", "runs/hasty", episode.episode_id)):
        code, out, _ = muarl(*words)
        assert code == 0
        for event in episode.events:
            assert event.text.split("\n")[0][:60] in out
        assert f"end  {episode.end.reason.value}" in out
    raw = json.loads(muarl("show", episode.episode_id, "--raw")[1])
    assert raw["episode_id"] == episode.episode_id and len(raw["events"]) == len(episode.events)


def test_unknown_and_ambiguous_ids_say_what_to_do(muarl: Any, runs: Path, tmp_path: Path) -> None:
    code, _, err = muarl("show", "zzz")
    assert code == ExitCode.MISSING_INPUT and "muarl ls" in err
    for name in ("one", "two"):
        shutil.copytree(runs / "hasty", tmp_path / name)
    wanted = load_run(runs / "hasty").own[0].episode_id
    code, _, err = muarl("show", wanted, "--runs", str(tmp_path))
    assert code == ExitCode.USAGE and "2 episodes begin with" in err and "muarl show RUN ID" in err
    assert muarl("show", str(tmp_path / "one"), wanted)[0] == 0


def test_hostile_text_neither_moves_the_cursor_nor_becomes_markup(muarl: Any, runs: Path) -> None:
    code, out, err = muarl("show", "runs/hostile", "--limit", "0")
    assert code == 0 and not _CONTROL.search(out + err) and "[bold red]loud[/]" in out
    for episode in load_run(runs / "hostile").episodes:
        code, out, err = muarl("show", "runs/hostile", episode.episode_id)
        assert code == 0 and not _CONTROL.search(out + err)
    for words in (
        ["status", "runs/hostile"],
        ["ls"],
        ["gate", "runs/hostile"],
        ["compare", "runs/hostile", "runs/hostile"],
    ):
        code, out, err = muarl(*words)
        assert code in (0, 1) and not _CONTROL.search(out + err), words


def test_a_broken_rule_stands_in_the_transcript_after_its_turn(muarl: Any, runs: Path) -> None:
    episode = load_run(runs / "hostile").episodes[0]
    out = muarl("show", "runs/hostile", episode.episode_id)[1]
    assert "broken: policy · " in out and "layers: outcome pass, policy fail" in out
