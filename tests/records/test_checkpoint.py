"""A checkpoint is complete and verified, or not there; and nothing that could run code is ever read."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from records._faults import Crash, fault
from safetensors.numpy import load_file, save_file

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import checkpoint
from muarl_cli.records.checkpoint import (
    Checkpoint,
    Mark,
    load_latest,
    newest_checkpoint,
    resolve_model_path,
    save,
    steps,
)
from muarl_cli.records.lineage import Lineage, Parent, TaskMark, TrainedSet, write_lineage

LINEAGE = Lineage.make(
    stage="sft",
    run_id="r",
    settings_hash="s",
    seeds={"seed": 1},
    trained_on=[TrainedSet.of("a", "sft", [TaskMark("t1")])],
)


def _model(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "qwen3"}')
        save_file({"w": np.full(8, value, dtype=np.float32)}, folder / "model.safetensors")

    return write


def _save(run: Path, step: int, keep_last: int = 2, mark: Mark | None = None) -> Checkpoint:
    return save(
        run,
        step,
        write_model=_model(step),
        write_tensors={"optimizer": lambda path: save_file({"m": np.full(4, step, dtype=np.float32)}, path)},
        state={"step": step, "position": [1, 2]},
        lineage=LINEAGE,
        keep_last=keep_last,
        mark=mark,
    )


def _nothing_skipped(message: str) -> None:
    pytest.fail(message)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    made = _save(tmp_path, 120)
    found = load_latest(tmp_path, _nothing_skipped)
    assert found == made and found is not None
    assert found.folder == tmp_path / "checkpoints" / "step-000120"
    assert found.step == 120 and found.state == {"step": 120, "position": [1, 2]} and found.lineage == LINEAGE
    assert load_file(found.tensors("optimizer"))["m"].tolist() == [120.0] * 4
    assert load_file(found.folder / "model.safetensors")["w"].tolist() == [120.0] * 8
    assert (tmp_path / "checkpoints" / "LATEST").read_text() == "step-000120\n"
    with pytest.raises(MuarlError, match="'ema'"):
        found.tensors("ema")


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path, _nothing_skipped) is None


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        _save(tmp_path, step, mark=Mark.BEST if step == 2 else None)
    assert [folder.name for folder in steps(tmp_path)] == ["step-000005", "step-000004", "step-000002"]
    assert resolve_model_path(tmp_path, _nothing_skipped).name == "step-000002"


def test_what_earned_most_is_kept_and_found_by_name_and_the_newest_is_used(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step, keep_last=1, mark=Mark.HIGHEST if step in (1, 2) else None)
    assert [folder.name for folder in steps(tmp_path)] == ["step-000004", "step-000002"]
    assert resolve_model_path(tmp_path, _nothing_skipped).name == "step-000004"
    named = tmp_path / "checkpoints" / "HIGHEST"
    assert resolve_model_path(named, _nothing_skipped).name == "step-000002"
    with pytest.raises(MuarlError, match="no model folder"):
        resolve_model_path(tmp_path / "checkpoints" / "BEST", _nothing_skipped)


@pytest.mark.parametrize("harm", ["flip", "cut", "missing", "extra", "manifest", "link"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path, harm: str) -> None:
    _save(tmp_path, 1)
    newest = _save(tmp_path, 2).folder
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if harm == "flip":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif harm == "cut":
        weights.write_bytes(data[:-4])
    elif harm == "missing":
        (newest / "config.json").unlink()
    elif harm == "extra":
        (newest / "more.json").write_text("{}")
    elif harm == "manifest":
        (newest / "manifest.json").write_text('{"step": 2')
    else:
        weights.unlink()
        weights.symlink_to(tmp_path / "nowhere")
    skipped: list[str] = []
    found = load_latest(tmp_path, skipped.append)
    assert found is not None and found.step == 1
    assert len(skipped) == 1 and "step-000002" in skipped[0]
    assert _save(tmp_path, 2).step == 2
    assert load_latest(tmp_path, _nothing_skipped) is not None


def test_no_intact_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1).folder
    (folder / "config.json").write_text("{}")
    with pytest.raises(MuarlError) as caught:
        load_latest(tmp_path, lambda message: None)
    assert caught.value.code is ExitCode.BAD_DATA


@pytest.mark.parametrize("failure", ["crash", "error"])
def test_a_failure_at_any_system_call_of_a_save_leaves_a_verified_checkpoint(
    tmp_path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # the calls are still counted and failed; only the disk is spared

    def error() -> BaseException:
        return Crash() if failure == "crash" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for nth in range(1, 300):
        run = tmp_path / str(nth)
        _save(run, 1, keep_last=1)
        with fault(nth, error, lasting=failure == "crash") as failed:
            try:
                _save(run, 2, keep_last=1)
            except Crash:
                pass
            except MuarlError as stopped:
                assert stopped.code is ExitCode.TEMPORARY
        found = load_latest(run, _nothing_skipped)
        assert found is not None and found.step in (1, 2)
        assert found.state["step"] == found.step
        assert load_file(found.folder / "model.safetensors")["w"][0] == found.step
        assert _save(run, 3, keep_last=1).step == 3
        assert [folder.name for folder in steps(run)] == ["step-000003"]
        assert not list((run / "checkpoints").glob(".tmp-*"))
        if not failed:
            break
    else:
        pytest.fail("never a clean pass")


class _Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("boom",)


def test_pickles_are_refused_and_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    (plain / "pytorch_model.bin").write_bytes(pickle.dumps(_Boom()))
    with pytest.raises(MuarlError, match="run code"):
        resolve_model_path(plain, _nothing_skipped)
    (plain / "model.safetensors").write_bytes(pickle.dumps(_Boom()))
    with pytest.raises(MuarlError, match="no intact safetensors"):
        resolve_model_path(plain, _nothing_skipped)
    folder = _save(tmp_path / "run", 1).folder
    (folder / "trainer" / "optimizer.pt").write_bytes(pickle.dumps(_Boom()))
    with pytest.raises(MuarlError, match="run code"):
        checkpoint.verify(folder)
    with pytest.raises(MuarlError, match="run code"):
        save(
            tmp_path / "run",
            2,
            write_model=lambda path: (path / "a.pkl").write_bytes(b""),
            write_tensors={},
            state={},
            lineage=LINEAGE,
            keep_last=1,
        )
    assert not (tmp_path / "boom").exists()


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path, 1).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["name"] = "../../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MuarlError):
        checkpoint.verify(folder)


def test_a_model_is_found_from_a_run_a_checkpoint_or_a_plain_folder(tmp_path: Path) -> None:
    folder = _save(tmp_path / "run", 1).folder
    assert resolve_model_path(tmp_path / "run", _nothing_skipped) == folder
    assert resolve_model_path(folder, _nothing_skipped) == folder
    plain = tmp_path / "plain"
    plain.mkdir()
    _model(1.0)(plain)
    assert resolve_model_path(plain, _nothing_skipped) == plain
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    for bad in (tmp_path / "nothing", tmp_path, empty):
        with pytest.raises(MuarlError) as caught:
            resolve_model_path(bad, _nothing_skipped)
        assert caught.value.code is ExitCode.MISSING_INPUT and caught.value.next_step


def test_a_damaged_best_falls_back_to_the_newest(tmp_path: Path) -> None:
    best = _save(tmp_path, 1, mark=Mark.BEST).folder
    _save(tmp_path, 2)
    (best / "config.json").write_text("{}")
    skipped: list[str] = []
    assert resolve_model_path(tmp_path, skipped.append).name == "step-000002"
    assert "best" in skipped[0]


def test_the_newest_finished_run_is_found_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    def run(name: str, stage: str, time: int, finished: bool = True) -> Path:
        folder = tmp_path / name
        _save(folder, 1)
        parent = Parent("model", "x", "h")
        write_lineage(
            folder,
            Lineage.make(stage=stage, run_id=name, settings_hash="s", seeds={}, parents=[(parent, None)]),
        )
        if finished:
            (folder / "summary.json").write_text("{}")
            os.utime(folder / "summary.json", (time, time))
        return folder

    assert newest_checkpoint(tmp_path) is None
    sft = run("demo/sft", "sft", 100)
    assert newest_checkpoint(tmp_path) == sft
    rl = run("demo/rl", "rl-train", 100)
    run("other", "rl-train", 200, finished=False)
    run("eval", "eval", 300)
    assert newest_checkpoint(tmp_path) == rl
    assert newest_checkpoint(tmp_path, ("sft",)) == sft
    later = run("sft2", "sft", 150)
    assert newest_checkpoint(tmp_path) == later
