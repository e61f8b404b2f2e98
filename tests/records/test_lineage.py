"""A lineage knows everything behind an artifact, also alone and elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muarl_cli.errors import MuarlError
from muarl_cli.records.lineage import (
    Lineage,
    Parent,
    TaskMark,
    TrainedSet,
    overlap,
    read_lineage,
    trained_on,
    write_lineage,
)
from muarl_cli.worlds.scenario import GoldCall, Task


def _make(stage: str, *parents: Lineage, tasks: list[TaskMark] | None = None, trained: str = "") -> Lineage:
    marks = tasks or []
    return Lineage.make(
        stage=stage,
        run_id=stage,
        settings_hash="s",
        seeds={"seed": 7},
        parents=[(Parent("model", f"runs/{p.stage}", p.run_id), p) for p in parents],
        tasks=marks,
        trained_on=[TrainedSet.of(trained, stage, marks)] if trained else [],
    )


def _task(name: str, write: str = "", split: str = "test") -> Task:
    calls = (GoldCall("cancel", {"order": write}),) if write else ()
    return Task(name, "builtin", "retail", split, "f", {"goal": name}, {}, calls, calls)


def test_a_moved_grandchild_still_knows_what_its_ancestors_were_trained_on(tmp_path: Path) -> None:
    a, b = TaskMark("a", "wa"), TaskMark("b", "wb")
    cold = _make("synth-coldstart", tasks=[a])
    sft = _make("sft", cold, tasks=[a], trained="cold-hash")
    rl = _make("rl-train", sft, tasks=[b], trained="rl-run")
    folder = tmp_path / "here"
    folder.mkdir()
    write_lineage(folder, rl)
    shutil.move(folder, tmp_path / "there")
    assert read_lineage(tmp_path / "there") == rl
    assert trained_on(tmp_path / "there") == {a, b}
    assert cold.trained_on() == frozenset()


def test_a_set_reached_on_two_ways_is_stored_once() -> None:
    a = TaskMark("a", "wa")
    sft = _make("sft", tasks=[a], trained="x")
    rollouts = _make("rollout", sft)
    again = _make("sft", sft, rollouts, tasks=[a, a], trained="x")
    assert again.trained == (TrainedSet("x", "sft", (a,)),)


def test_equal_task_and_equal_gold_writes_are_found_and_empty_ones_match_nothing() -> None:
    trained = [_task("t1", "W1", "train"), _task("t2", split="train")]
    lineage = _make("sft", tasks=[TaskMark.of(t) for t in trained], trained="x")
    clean, refusal = _task("t3", "W3"), _task("t4")
    same_writes = _task("t5", "W1")
    found = overlap(lineage, [clean, trained[0], refusal, same_writes])
    assert [(o.task.task_hash, o.by) for o in found] == [
        (trained[0].task_hash, "task_hash"),
        (same_writes.task_hash, "gold_write_hash"),
    ]
    assert not found[0].within_official_pair and found[1].within_official_pair
    assert found[1].trained == TaskMark.of(trained[0])


def test_marks_of_some_episodes_keep_their_gold_write_hash() -> None:
    known = TaskMark("a", "wa", "builtin", "retail", "train")
    assert _make("rollout", tasks=[known]).marks_of(["z", "a", "a"]) == [known, TaskMark("z")]


def test_a_folder_without_lineage_is_unknown_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert read_lineage(tmp_path) is None and trained_on(tmp_path) == frozenset()
    for text in ("{", "[]", '{"schema": "muarl.lineage/2.0"}', '{"schema": "muarl.lineage/1.0"}'):
        (tmp_path / "lineage.json").write_text(text)
        with pytest.raises(MuarlError):
            read_lineage(tmp_path)


def test_a_lineage_names_the_versions_that_made_it() -> None:
    versions = _make("sft").versions
    assert {"python", "muarl", "numpy"} <= set(versions) and all(versions.values())
