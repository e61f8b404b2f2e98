"""The rules of TAU2's reward on event lists made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.benchmarks.tau2_reward import grade, missing_calls
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.worlds.scenario import GoldCall, Task, outputs_count, without_outputs


def _task(*gold: GoldCall, **fields: Any) -> Task:
    given = {"bases": ("action",), "communicate": (), "extra": {}} | fields
    return Task("t", "tau2", "d", "test", "f", {}, {}, gold, (), **given)


def _calls(*calls: tuple[str, dict[str, Any]], actor: Actor = Actor.AGENT) -> list[Event]:
    return [
        Event(i, actor, Kind.CALL, call=CallRecord(f"c{i}", name, arguments))
        for i, (name, arguments) in enumerate(calls)
    ]


def _graded(task: Task, events: list[Event], **fields: Any) -> tuple[float, dict[str, Any]]:
    return grade(task, events, **({"same_state": True, "assertions": [], "keep_outputs": True} | fields))


def test_a_call_that_omits_arguments_matches_and_one_that_differs_does_not() -> None:
    task = _task(GoldCall("pay", {"bill": "B1", "amount": 5}))
    assert missing_calls(task, _calls(("pay", {"bill": "B1"}))) == ()
    assert missing_calls(task, _calls(("pay", {}))) == ()
    assert missing_calls(task, _calls(("pay", {"bill": "B2", "amount": 5}))) == task.gold
    assert missing_calls(task, _calls(("pay", {"bill": "B1", "amount": 5, "note": "x"}))) == task.gold


def test_only_the_named_arguments_are_compared_where_a_task_names_them() -> None:
    task = _task(GoldCall("pay", {"bill": "B1", "amount": 5}), extra={"compare": (["bill"],)})
    assert missing_calls(task, _calls(("pay", {"bill": "B1", "amount": 9}))) == ()
    assert missing_calls(task, _calls(("pay", {"bill": "B2", "amount": 5}))) == task.gold


def test_it_does_not_matter_who_made_a_call_nor_in_which_order() -> None:
    task = _task(GoldCall("a", {"x": 1}), GoldCall("b", {"y": 2}, "user"))
    assert missing_calls(task, _calls(("b", {"y": 2}), ("a", {"x": 1}), actor=Actor.USER)) == ()


def test_a_call_that_could_not_be_read_was_not_made() -> None:
    broken = Event(0, Actor.AGENT, Kind.CALL, "{", CallRecord("c", "pay", None))
    assert missing_calls(_task(GoldCall("pay", {})), [broken]) != ()


def test_the_reward_is_the_product_over_the_bases_and_null_is_told() -> None:
    task = _task(GoldCall("a", {"x": 1}), bases=("env_assertion", "action", "nl_assertion"))
    reward, detail = _graded(task, _calls(("a", {"x": 1})), assertions=[True, True])
    assert reward == 1.0
    assert detail["bases"] == {"env_assertion": True, "action": True, "nl_assertion": None}
    assert detail["unjudged"] == ["nl_assertion"]
    reward, detail = _graded(task, [], assertions=[True, False])
    assert (reward, detail["completion"]) == (0.0, 1 / 3)


def test_state_counts_only_where_a_task_names_it() -> None:
    assert _graded(_task(bases=("env_assertion",)), [], same_state=False, assertions=[True])[0] == 1.0
    assert _graded(_task(bases=("db", "env_assertion")), [], same_state=False, assertions=[True])[0] == 0.0


def test_dropped_outputs_leave_the_reward_and_nothing_else() -> None:
    task = _task(bases=("db", "communicate"), communicate=("327",))
    assert _graded(task, [])[0] == 0.0
    assert _graded(task, [], keep_outputs=False)[0] == 1.0
    assert _graded(task, [], keep_outputs=False)[1]["bases"] == {"db": True}
    assert outputs_count(task)
    assert not outputs_count(without_outputs(task))
    assert without_outputs(task).task_hash == task.task_hash


@pytest.mark.parametrize("reason", list(EndReason))
def test_an_end_that_is_not_graded_is_worth_nothing_whatever_was_done(reason: EndReason) -> None:
    events = [Event(0, Actor.RUNNER, Kind.END, reason.value)]
    assert _graded(_task(bases=("db",)), events)[0] == float(reason.graded)


@given(st.lists(st.booleans(), max_size=8), st.booleans())
def test_the_completion_is_a_share_and_is_full_exactly_where_the_reward_is(held: list[bool], same: bool) -> None:
    task = _task(bases=("db", "env_assertion"))
    reward, detail = _graded(task, [], same_state=same, assertions=held)
    assert 0.0 <= detail["completion"] <= 1.0
    assert (detail["completion"] == 1.0) == (reward == 1.0)
