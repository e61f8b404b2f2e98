"""Task hashes, references to task sets, the errors of both, and the words of a domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.errors import MuarlError
from muarl_cli.worlds import catalog
from muarl_cli.worlds.catalog import load_tasks, scenario_of
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goal_from, goals_of
from muarl_cli.worlds.language import language_from, said, value_text
from muarl_cli.worlds.scenario import GoldCall, Task

TASK = Task(
    id="t-1", source="builtin", scenario="retail", split="test", family="cancel", brief={"goals": [{"a": 1}]},
    initial={"base": "retail/1"}, gold=(GoldCall("look", {"id": "1"}), GoldCall("put", {"n": 25})),
    gold_writes=(GoldCall("put", {"n": 25}),),
)  # fmt: skip


def test_the_task_hash_is_the_same_in_every_release() -> None:
    assert TASK.task_hash == "0b2e20eccba390d3"
    assert TASK.gold_write_hash == "4ae7abe077579289"
    assert builtin("retail").tasks("test")[0].task_hash == "06b5e8832a2c95dd"
    assert builtin("library").tasks("test")[0].task_hash == "2d89aad70aead4af"
    assert builtin("course_registration").tasks("test")[0].task_hash == "2bcf275db082a74d"
    assert builtin("meeting_room").tasks("test")[0].task_hash == "893d857034137cd2"


def test_names_of_a_task_do_not_change_its_hash_and_what_defines_it_does() -> None:
    renamed = replace(TASK, id="other", split="train", family="x", extra={"note": 1})
    assert renamed.task_hash == TASK.task_hash
    changed = [
        replace(TASK, brief={"goals": [{"a": 2}]}),
        replace(TASK, initial={"base": "retail/2"}),
        replace(TASK, gold=TASK.gold[:1]),
        replace(TASK, communicate=("7",)),
        replace(TASK, source="tau2"),
        replace(TASK, scenario="library"),
    ]
    assert len({t.task_hash for t in [TASK, *changed]}) == 7
    assert replace(TASK, gold=(TASK.gold[0], GoldCall("put", {"n": 25.0}))).task_hash == TASK.task_hash


@given(st.permutations([GoldCall("put", {"n": n}) for n in range(4)]))
@settings(max_examples=20)
def test_the_order_of_gold_writes_does_not_matter_for_leaks(calls: list[GoldCall]) -> None:
    ordered = replace(TASK, gold_writes=tuple(GoldCall("put", {"n": n}) for n in range(4)))
    assert replace(TASK, gold_writes=tuple(calls)).gold_write_hash == ordered.gold_write_hash


def test_no_gold_write_has_no_hash() -> None:
    assert replace(TASK, gold_writes=()).gold_write_hash == ""
    assert not replace(TASK, gold_writes=()).writes


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        (["nowhere:retail:test"], "builtin"),
        (["builtin:bakery:test"], "library, retail"),
        (["builtin:retail:exam"], "test, dev, train"),
        (["builtin:retail:test:no-such-task"], "no-such-task"),
        (["builtin:retail:test:0"], "ids go from retail-test-0000 to retail-test-0239"),
    ],
)
def test_an_unknown_part_of_a_reference_is_an_error_that_names_the_options(refs: list[str], message: str) -> None:
    with pytest.raises(MuarlError) as caught:
        load_tasks(refs)
    assert message in str(caught.value)


def test_a_task_named_twice_comes_once_and_the_order_is_kept() -> None:
    rows = load_tasks(["builtin:library:test:library-test-0003", "builtin:library:test", "builtin:retail:dev"])
    ids = [task.id for _, task in rows]
    assert ids[:3] == ["library-test-0003", "library-test-0000", "library-test-0001"]
    assert len(ids) == len(set(ids)) == 240 + 120
    assert {scenario.name for scenario, _ in rows} == {"library", "retail"}


def test_tasks_of_two_splits_that_share_an_id_are_two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    tasks = {
        split: [SimpleNamespace(source="tau1", scenario="retail", id="0", task_hash=f"hash of {split}")]
        for split in ("train", "test")
    }
    monkeypatch.setattr(catalog, "scenario_of", lambda source, name: SimpleNamespace(tasks=tasks.__getitem__))
    rows = load_tasks(["tau1:retail:train", "tau1:retail:test", "tau1:retail:test:0"])
    assert [task.task_hash for _, task in rows] == ["hash of train", "hash of test"]


def test_scenarios_are_opened_once() -> None:
    assert scenario_of("builtin", "library") is scenario_of("builtin", "library")


def test_goals_survive_json() -> None:
    for task in builtin("library").tasks("test"):
        goals = goals_of(task.brief)
        assert [goal.to_json() for goal in goals] == list(task.brief["goals"])
        assert tuple(goal_from(goal.to_json()) for goal in goals) == goals


@pytest.mark.parametrize(
    ("value", "text", "heard"),
    [
        (2, "order 4821, 2 pieces", True),
        (2, "order 4821", False),
        ("4821", "it is #4821.", True),
        ("482", "it is 4821", False),
        ("Red", "the RED one", True),
        ("ana12@mail.com", "ana12@mail.com, please", True),
        ("ana", "ana12@mail.com", False),
        ({"street": "41 lake lane", "city": "porto"}, "to 41 Lake Lane, Porto.", True),
        ({"street": "41 lake lane", "city": "porto"}, "to 41 Lake Lane.", False),
        ("a+b (c)", "say a+b (c) now", True),
    ],
)
def test_a_value_is_heard_as_whole_words_only(value: Any, text: str, heard: bool) -> None:
    assert said(value, text) is heard
    assert value_text(value)


def test_a_key_that_the_language_does_not_know_is_an_error() -> None:
    slot = {"words": "x", "hear": "x", "tell": ["{v}"], "serch": {}}
    with pytest.raises(ValueError, match="serch"):
        language_from({"slots": {"a": slot}, "intents": {}, "phrases": {}})
