"""The kit domains are written with: write sets, refusals, arithmetic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.events import ToolClass, Write
from muarl_cli.worlds.store import Base, Store
from muarl_cli.worlds.toolkit import Desk, Refusal, StoreWorld, change_once, evaluate, integer, refuse, tool, toolset


@tool(ToolClass.WRITE, "Move a thing.", place=integer("where", 0, 9))
def move(desk: Desk, place: int) -> Any:
    thing = desk.read("things", "7")
    if place == 9:
        raise Refusal("9 is taken")
    desk.save("things", "7", thing | {"place": place})
    desk.save("persons", "1", {"moved": True})
    return {"place": place}


def world() -> StoreWorld:
    base = Base({"things": {"7": {"person_id": "1", "place": 0}}, "persons": {"1": {}}})
    return StoreWorld(base, toolset(move), "person_id")


def test_the_write_set_is_what_was_saved_with_its_owner() -> None:
    result = world().run("move", {"place": 3})
    assert result.ok and json.loads(result.text) == {"place": 3}
    assert result.writes == (Write("thing", "7", "1"), Write("person", "1", "1"))


def test_a_refusal_is_an_answer_and_changes_nothing() -> None:
    place = world()
    before = place.fingerprint()
    result = place.run("move", {"place": 9})
    assert not result.ok and result.text == "Error: 9 is taken" and result.writes == ()
    assert place.fingerprint() == before


def test_a_missing_record_is_refused_by_name() -> None:
    empty = StoreWorld(Base({}), toolset(move), "person_id")
    assert empty.run("move", {"place": 1}).text == "Error: no thing 7"


def desk() -> Desk:
    things = {"1007": {"person_id": "1", "status": "new"}, "1008": {"person_id": "2", "status": "old"}}
    return Desk(Store(Base({"things": things})), "person_id")


def test_what_is_not_ones_own_or_not_in_the_right_status_is_refused_by_name() -> None:
    assert desk().own("things", "thing", "1007", "1") == desk().in_status("things", "thing", "1007", "new", "fresh")
    with pytest.raises(Refusal, match="thing 1008 does not belong to person 1"):
        desk().own("things", "thing", "1008", "1")
    with pytest.raises(Refusal, match="thing 1008 is old, not new or fresh"):
        desk().in_status("things", "thing", "1008", "new", "fresh")
    for refused in (lambda: desk().own("things", "thing", "9", "1"), lambda: desk().in_status("things", "thing", "9")):
        with pytest.raises(Refusal, match="no thing 9"):
            refused()


def test_of_what_an_owner_may_have_once_the_first_is_kept() -> None:
    own = Desk(Store(Base({"persons": {"1": {}}, "notes": {}})), "person_id")
    assert own.add_once("notes", "1", "has a note", topic="noise") == "ok"
    assert own.writes == [Write("note", "1", "1")]
    with pytest.raises(Refusal, match="person 1 has a note"):
        own.add_once("notes", "1", "has a note", topic="light")
    with pytest.raises(Refusal, match="no person 2"):
        own.add_once("notes", "2", "has a note", topic="light")
    assert own.read("notes", "1") == {"person_id": "1", "topic": "noise"}


def test_only_a_reason_refuses() -> None:
    refuse("")
    with pytest.raises(Refusal, match="it is late"):
        refuse("it is late")


def test_a_field_changes_once_and_another_one_still_can() -> None:
    once = change_once({"phone": "1", "email": "a"}, "person 1", {"phone": "2"})
    assert once == {"phone": "2", "email": "a", "changed": ["phone"]}
    assert change_once(once, "person 1", {"email": "b"})["changed"] == ["email", "phone"]
    with pytest.raises(Refusal, match="the phone of person 1 was already changed once"):
        change_once(once, "person 1", {"email": "b", "phone": "3"})


def test_a_new_number_depends_on_what_it_is_for_and_never_on_the_order_and_is_never_taken() -> None:
    place = desk()
    first = place.free_number(("things",), "1", "a")
    assert first == desk().free_number(("things",), "1", "a") and len(first) == 4 and first.isdigit()
    assert first != place.free_number(("things",), "1", "b")
    place.save("things", first, {"person_id": "1"})
    assert place.free_number(("things",), "1", "a") not in (first, "1007", "1008")


def test_the_three_common_tools_come_with_every_domain() -> None:
    classes = {t.name: t.klass for t in world().tools}
    assert list(classes) == ["move", "calculate", "think", "transfer_to_human_agents"]
    assert classes["transfer_to_human_agents"] is ToolClass.TERMINAL


@pytest.mark.parametrize(
    ("expression", "value"), [("2 * (3 + 4)", "14"), ("10 / 4", "2.5"), ("-3 + 1", "-2"), ("0.1+0.2", "0.3")]
)
def test_calculate_answers_arithmetic(expression: str, value: str) -> None:
    assert world().run("calculate", {"expression": expression}).text == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "__import__('os')",
        "1/0",
        "(" * 150 + "1",
        "a+1",
        "",
        "1" * 300,
        "True+1",
        "[1][0]",
        "1e308*9e9",
        "1e999-1e999",
    ],
)
def test_calculate_refuses_everything_else_at_once(expression: str) -> None:
    assert not world().run("calculate", {"expression": expression}).ok


@given(st.text(alphabet="0123456789+-*/(). eE_x", max_size=40))
@settings(max_examples=200)
def test_calculate_never_crashes(expression: str) -> None:
    try:
        value = evaluate(expression)
    except Refusal:
        return
    assert abs(value) <= 1e15
