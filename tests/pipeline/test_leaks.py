"""The leak guard: the paper's own overlap, harmless matches that hide nothing, and `muarl leaks` on sets and logs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.evaluate import check_overlap
from muarl_cli.pipeline.leaks import side_of
from muarl_cli.records.lineage import Lineage, TaskMark, TrainedSet, overlap, write_lineage
from muarl_cli.scoring.wording import BOILERPLATE, GRAM, MASK, alike, grams, masked
from muarl_cli.settings.resolve import resolve
from muarl_cli.worlds.scenario import GoldCall, Task


def _task(source: str, name: str, order: str, split: str = "test", outputs: tuple[str, ...] = ()) -> Task:
    calls = (GoldCall("cancel_pending_order", {"order_id": order, "reason": "ordered by mistake"}),) if order else ()
    return Task(name, source, "retail", split, "f", {"goal": name}, {}, calls, calls, outputs)


def _trained_on(*tasks: Task) -> Lineage:
    sets = [TrainedSet.of("rl", "rl-train", [TaskMark.of(task) for task in tasks])]
    return Lineage.make(stage="rl-train", run_id="rl", settings_hash="", seeds={}, trained_on=sets)


TAU1 = [_task("tau1", "0", "#W1", outputs=("10",)), _task("tau1", "1", "#W2"), _task("tau1", "2", "")]
EMPTIED = [replace(task, communicate=()) for task in TAU1]


def test_training_on_a_test_set_with_its_outputs_emptied_is_found_there_and_in_its_successor() -> None:
    lineage = _trained_on(*EMPTIED)
    assert [o.by for o in overlap(lineage, TAU1)] == ["gold_write_hash", "task_hash", "task_hash"]
    successor = [_task("tau2", "a", "#W1", "base"), _task("tau2", "b", "#W9", "base"), _task("tau2", "c", "", "base")]
    (found,) = overlap(lineage, successor)
    assert found.task == TaskMark.of(successor[0]) and found.refuses


def test_an_evaluation_is_refused_for_it_with_the_list_unless_it_is_allowed(tmp_path: Path) -> None:
    write_lineage(tmp_path, _trained_on(*EMPTIED))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    given = {"model": ("--model", str(tmp_path))}
    settings: Any = resolve(_stage(), flags=given).settings
    tasks: Any = [(None, _task("tau2", "a", "#W1", "base"))]

    class Quiet:
        said: tuple[str, ...] = ()

        def warn(self, text: object) -> None:
            self.said += (str(text),)

    with pytest.raises(MuarlError, match="1 of 1 tasks were trained on") as caught:
        check_overlap(settings, tasks, Quiet())  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.GATE_FAILED and tasks[0][1].task_hash in caught.value.why
    allowed = settings.model_copy(update={"allow_overlap": True})
    rows = check_overlap(allowed, tasks, Quiet())  # type: ignore[arg-type]
    assert [(row["task"], row["by"]) for row in rows] == [(tasks[0][1].task_hash, "gold_write_hash")]


def test_a_match_inside_an_official_pair_never_hides_one_that_refuses() -> None:
    evaluated = _task("tau2", "a", "#W1", "test")
    inside = _task("tau2", "b", "#W1", "train")
    (harmless,) = overlap(_trained_on(inside), [evaluated])
    assert not harmless.refuses
    for other in ("tau1", "zzz", "builtin"):
        (found,) = overlap(_trained_on(inside, _task(other, "b", "#W1")), [evaluated])
        assert found.refuses and found.trained.source == other


def test_leaks_says_the_same_of_task_sets_and_of_the_log_of_their_episodes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["rollout", "--agent", "oracle", "--tasks", "builtin:retail:dev", "--max-tasks", "6", "--out", str(run),
                 "group=1"]) == 0  # fmt: skip
    capfd.readouterr()
    assert main(["leaks", str(run), "builtin:retail:dev", "--json"]) == ExitCode.GATE_FAILED
    found = json.loads(capfd.readouterr().out)
    assert (found["first"]["tasks"], found["by_task"], found["refusing"]) == (6, 6, 6)
    assert all(row["task"] == row["with"] and row["task"].startswith("builtin:retail:dev:") for row in found["overlaps"]
               if row["by"] == "task_hash")  # fmt: skip
    assert main(["leaks", str(run), "builtin:retail:test,builtin:library:test", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["refusing"] == 0
    assert side_of(str(run)).marks == side_of(str(run / "episodes.jsonl")).marks


def test_a_training_run_stands_for_what_was_trained_on(tmp_path: Path) -> None:
    write_lineage(tmp_path, _trained_on(*EMPTIED))
    (tmp_path / "episodes.jsonl").write_text("")
    assert set(side_of(str(tmp_path)).marks) == {TaskMark.of(task) for task in EMPTIED}


def test_a_folder_that_says_nothing_of_tasks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MuarlError):
        side_of(str(tmp_path))


def test_values_are_masked_and_wording_is_compared_without_boilerplate() -> None:
    words = masked("Please cancel order #W12 of Mei O'Hara, worth 25 dollars", ["Mei O'Hara"])
    assert words == ("please", "cancel", "order", MASK, "of", MASK, MASK, "worth", MASK, "dollars")
    rules = " ".join(f"rule{'x' * n}" for n in range(12))
    one = {f"a{n}": grams(masked(f"{rules} " + " ".join(f"w{'y' * n}{'z' * m}" for m in range(12)))) for n in range(3)}
    other = {"same": one["a1"], "rules": grams(masked(rules))}
    assert len(one) == BOILERPLATE
    (row,) = alike(one, other)
    assert (row.task, row.other, row.share) == ("same", "a1", 1.0)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30))
def test_a_text_is_wholly_alike_to_itself_or_too_short_to_have_wording(words: list[str]) -> None:
    held = grams(tuple(words))
    assert len(held) <= max(1, len(words) - GRAM + 1)
    found = alike({"x": held}, {"y": held})
    assert [row.share for row in found] == ([1.0] if held else [])


def _stage() -> Any:
    from muarl_cli.settings.bases import Stage

    return Stage.EVAL
