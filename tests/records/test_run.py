"""A run folder belongs to one stage, one set of settings and one writer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.run import RunFolder, kept_owed, read_settings, run_id, settings_diff

SETTINGS: dict[str, Any] = {
    "group_size": 4,
    "lr": 1e-6,
    "in_flight": 8,
    "out": "a",
    "user": {"kind": "scripted", "port": 1},
}
FREE = ("in_flight", "out", "user.port")


def _open(path: Path, stage: str = "rl-train", **changes: Any) -> RunFolder:
    return RunFolder.open(path, stage, {**SETTINGS, **changes}, free=FREE)


def test_the_same_command_is_the_same_run_wherever_it_writes(tmp_path: Path) -> None:
    with _open(tmp_path / "a") as first, _open(tmp_path / "b", out="b", in_flight=2) as second:
        assert first.run_id == second.run_id == run_id("rl-train", SETTINGS, FREE)
        assert not first.resumed
    with _open(tmp_path / "a", user={"kind": "scripted", "port": 9}) as again:
        assert again.resumed and again.run_id == first.run_id
    assert read_settings(tmp_path / "a") == SETTINGS
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert run_id("sft", SETTINGS, FREE) != first.run_id


def test_changed_settings_are_refused_with_a_diff_and_the_folder_stays(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        run.log_metrics(1, {"loss": 0.5})
    before = (tmp_path / "settings.yaml").read_bytes()
    with pytest.raises(MuarlError) as caught:
        _open(tmp_path, group_size=8, user={"kind": "llm", "port": 1})
    assert caught.value.code is ExitCode.CONFIG
    assert caught.value.why == 'group_size: 4 -> 8; user.kind: "scripted" -> "llm"'
    assert (tmp_path / "settings.yaml").read_bytes() == before
    _open(tmp_path).close()


def test_a_run_that_stopped_before_it_wrote_anything_does_not_bind_its_folder(tmp_path: Path) -> None:
    with _open(tmp_path, tasks="misspelt") as first:
        (tmp_path / "episodes.jsonl").touch()
    with _open(tmp_path, tasks="mended") as mended:
        assert not mended.resumed and mended.run_id != first.run_id
        assert (read_settings(tmp_path) or {})["tasks"] == "mended"
    (tmp_path / "spend.json").write_text("{}")  # money was reserved: that is something
    with pytest.raises(MuarlError, match="other settings"):
        _open(tmp_path, tasks="other")


def test_a_folder_of_another_stage_or_of_other_things_is_refused(tmp_path: Path) -> None:
    _open(tmp_path / "run").close()
    with pytest.raises(MuarlError, match="rl-train"):
        _open(tmp_path / "run", stage="sft")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("x")
    with pytest.raises(MuarlError, match="not empty"):
        _open(tmp_path / "home")


def test_a_file_is_no_folder_to_write_a_run_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(MuarlError, match="is a file") as refused:
        _open(tmp_path / "a")
    assert refused.value.code is ExitCode.USAGE and "--out" in refused.value.next_step
    assert (tmp_path / "a").read_text() == "mine"


def test_absent_and_equal_numbers_in_a_diff() -> None:
    assert settings_diff({"a": 1, "b": 2}, {"a": 1.0, "c": [1]}) == ["b: 2 -> (absent)", "c: (absent) -> [1]"]


def test_a_second_process_is_told_at_once_who_holds_the_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from muarl_cli.records.run import RunFolder\n"
        f"run = RunFolder.open(Path({str(tmp_path)!r}), 'rl-train', {SETTINGS!r}, free={FREE!r})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "open\n"
    with pytest.raises(MuarlError, match=f"process {holder.pid}") as caught:
        _open(tmp_path)
    assert caught.value.code is ExitCode.BUSY
    holder.kill()
    holder.communicate()
    _open(tmp_path).close()  # a killed holder leaves no lock behind


def test_metrics_survive_a_torn_tail_and_are_rewound_to_the_resumed_step(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        for step in (1, 2, 3):
            run.log_metrics(step, {"reward": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step":4,"rew')
    with _open(tmp_path) as run:
        assert [row["step"] for row in run.metrics()] == [1, 2, 3]
        assert run.keep_metrics_until(2) == 1
        run.log_metrics(3, {"reward": 0.75})
        assert run.metrics() == [{"step": s, "reward": r} for s, r in ((1, 0.5), (2, 0.5), (3, 0.75))]
        assert run.keep_metrics_until(1) == 2
        run.log_metrics(2, {})
        assert [row["step"] for row in run.metrics()] == [1, 2]
    assert (tmp_path / "metrics.jsonl.torn-1").read_bytes() == b'{"step":4,"rew'


def test_a_figure_that_is_not_finite_becomes_null_and_is_named(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        run.log_metrics(1, {"kl": float("nan"), "by": {"x": float("inf"), "y": [1, float("nan")]}, "ok": 2})
        assert run.metrics() == [
            {"step": 1, "kl": None, "by": {"x": None, "y": [1, None]}, "ok": 2, "not_finite": ["kl", "by.x", "by.y.1"]}
        ]
    assert b"NaN" not in (tmp_path / "metrics.jsonl").read_bytes()


def test_a_summary_is_strict_json_and_marks_the_run_as_finished(tmp_path: Path) -> None:
    with _open(tmp_path) as run:
        assert run.summary is None
        with pytest.raises(MuarlError):
            run.finish({"score": float("nan")})
        assert run.summary is None
        written = run.finish({"score": 0.5})
        assert run.summary == written == json.loads((tmp_path / "summary.json").read_text())
        assert written == {"stage": "rl-train", "run_id": run.run_id, "score": 0.5}


def test_kept_and_owed_add_up() -> None:
    assert kept_owed(["a", "b", "c"], {"b", "z"}) == (["a", "c"], "kept 1, owed 2")
