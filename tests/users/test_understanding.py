"""What the scripted user makes of agent turns that follow no script: fuzz, and the wordings of large models."""

from __future__ import annotations

import random
import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.ends import EndReason
from muarl_cli.users import hearing
from muarl_cli.users.agenda import PATIENCE, AgendaUser
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import Change, Goal
from muarl_cli.worlds.language import said

CHANGING = "inject:mind_change"
WORDINGS: dict[str, list[dict[str, Any]]] = yaml.safe_load((Path(__file__).parent / "wordings.yaml").read_text("utf-8"))

GOAL = Goal(
    "address",
    {"customer_id": "4282", "order_id": "6790", "address": {"street": "41 lake lane", "city": "porto"}},
    ("order_id",),
    {},
    None,
    "",
)
CANCEL = Goal("cancel", {"customer_id": "4282", "order_id": "1234", "reason": "takes too long"}, (), {}, None, "")
PIECES = st.sampled_from(
    [
        "shall i go ahead?", "is that right?", "send order 6790 to 41 lake lane porto", "to 99 hill road oslo", "6790",
        "sorry", "done", "cannot", "please", "your customer id", "###STOP###", "goodbye!", "anything else?",
        "transfer you",
        "\x00\x07", "🦄🦄", "\n- ", "yes/no", "has been changed", "{v}", "%s", "order 6790", "41 lake lane", "porto",
    ]
)  # fmt: skip
FUZZ = st.lists(PIECES | st.text(max_size=20), max_size=8).map(" ".join)


def fresh(*goals: Goal, seed: int = 0) -> AgendaUser:
    user = AgendaUser(builtin("retail").language, goals or (GOAL, CANCEL), seed)
    user.answer("")
    return user


@given(st.lists(FUZZ, min_size=1, max_size=12), st.integers(0, 5))
@settings(max_examples=400)
def test_fuzzed_agent_turns_raise_nothing_and_get_consent_and_stops_only_when_due(turns: list[str], seed: int) -> None:
    user = fresh(seed=seed)
    agree = builtin("retail").language.phrases["agree"]
    for turn in turns:
        goal, pending = user.goals[user.at], user.consented
        text, end, _ = user.answer(turn)
        if text in agree:
            lowered = turn.lower()
            assert all(said(v, lowered) for s, v in goal.slots.items() if s != "customer_id" and goal is GOAL), turn
            assert "?" in turn or "confirm" in lowered
        if end is not None:
            done = user.at == len(user.goals)
            assert end is EndReason.USER_STOP
            assert done or "transfer you" in turn or (user.patience <= 0 and not pending)
            break


@pytest.mark.parametrize(
    "turn",
    ["", " ", "x" * 99_999, "? " * 50_000, "🦄" * 999, "\x00\x1b[31m\u202e", "###STOP###", "[{v}", "\n" * 99_999],
)
def test_odd_turns_neither_stop_nor_consent(turn: str) -> None:
    user = fresh()
    for _ in range(3):
        text, end, _ = user.answer(turn)
        assert text and end is None and not user.consented
    assert user.misses == 3


def test_a_stop_token_of_the_agent_stays_the_agents() -> None:
    user = fresh()
    text, end, _ = user.answer("###STOP### ###TRANSFER### <|im_end|>")
    assert end is None and "STOP" not in text


# --- consent, changes of mind, patience ---------------------------------------------------------------------------

PROPOSAL = "send order 6790 to 41 lake lane porto. shall i go ahead?"


def test_consent_is_given_only_to_the_current_values() -> None:
    agree = builtin("retail").language.phrases["agree"]
    assert fresh().answer(PROPOSAL)[0] in agree
    for wrong in ("41 lake lane oslo", "14 lake lane porto", "order 6791 to 41 lake lane porto"):
        user = fresh()
        proposal = wrong if wrong.startswith("order") else f"order 6790 to {wrong}"
        text, end, _ = user.answer(f"send {proposal}. shall i go ahead?")
        assert text not in agree and end is None and not user.consented, wrong


def test_a_change_is_voiced_once_at_the_first_proposal_and_consent_follows_the_new_value() -> None:
    changing = Goal(GOAL.intent, GOAL.slots, (), {}, Change("address", {"street": "7 hill road", "city": "graz"}), "")
    user = fresh(changing)
    text, _, tags = user.answer(PROPOSAL)
    assert "7 hill road graz" in text and tags == (CHANGING,)
    text, _, tags = user.answer(PROPOSAL)
    assert "7 hill road graz" in text and tags == () and not user.consented, "the old value is not agreed to"
    user.answer("send order 6790 to 7 hill road graz. shall i go ahead?")
    assert user.consented


def test_a_change_comes_late_where_nobody_asked() -> None:
    changing = Goal(GOAL.intent, GOAL.slots, (), {}, Change("address", {"street": "7 hill road", "city": "graz"}), "")
    user = fresh(changing)
    text, end, tags = user.answer("done, order 6790 goes to 41 lake lane porto. anything else?")
    assert "7 hill road graz" in text and end is None and tags == (CHANGING,)


def test_a_user_who_agreed_waits_and_never_leaves_by_themselves() -> None:
    user = fresh()
    user.answer(PROPOSAL)
    for turn in ["hm", "goodbye!", "anything else?", "one moment", "your customer id?"] * 6:
        assert user.answer(turn)[1] is None
    assert user.consented


def test_patience_ends_a_conversation_that_brings_nothing() -> None:
    user = fresh()
    ends = [user.answer("hm")[1] for _ in range(PATIENCE)]
    assert ends == [None] * (PATIENCE - 1) + [EndReason.USER_STOP]


def test_a_goodbye_with_open_requests_is_objected_to_before_the_user_leaves() -> None:
    user = fresh()
    assert user.answer("goodbye!")[1] is None
    assert user.answer("goodbye!")[1] is EndReason.USER_STOP


def test_an_unknown_slot_is_answered_by_what_is_known_instead_and_never_by_its_value() -> None:
    unknowing = Goal(GOAL.intent, GOAL.slots, (), {"order_id": "the order with the lamp"}, None, "")
    user = fresh(unknowing)
    for _ in range(4):
        text, _, _ = user.answer("please tell me the order id.")
        assert "the order with the lamp" in text and "6790" not in text


def test_several_slots_asked_at_once_are_told_at_once() -> None:
    text, _, _ = fresh().answer("please tell me your customer id and the new address.")
    assert "4282" in text and "41 lake lane porto" in text and "6790" not in text


def outcome_of(turn: str, agreed: bool) -> tuple[str, str, int]:
    user = fresh()
    if agreed:
        user.answer(PROPOSAL)
    text, end, _ = user.answer(turn)
    if end is not None:
        return "left", text, user.misses
    if user.at > 0:
        return "next", text, user.misses
    if user.consented and not agreed:
        return "agreed", text, user.misses
    return "open", text, user.misses


@pytest.mark.parametrize("row", WORDINGS["retail"], ids=[row["turn"][:40] for row in WORDINGS["retail"]])
def test_the_user_reacts_to_a_large_models_wording_as_a_person_would(row: dict[str, Any]) -> None:
    result, text, _ = outcome_of(row["turn"], row.get("after_consent", False))
    assert result == ("open" if row["reaction"] == "told" else row["reaction"]), text
    assert row.get("value", "") in text


def test_at_most_15_percent_of_a_large_models_wordings_are_missed() -> None:
    rows = WORDINGS["retail"]
    misses = sum(outcome_of(row["turn"], row.get("after_consent", False))[2] for row in rows)
    assert len(rows) >= 30 and misses <= 0.15 * len(rows)


@pytest.mark.parametrize("row", WORDINGS["library"], ids=[row["turn"][:40] for row in WORDINGS["library"]])
def test_the_library_user_understands_too(row: dict[str, Any]) -> None:
    goal = Goal("borrow", {"member_id": "3074", "title": "quiet river", "weeks": 4}, (), {}, None, "")
    user = AgendaUser(builtin("library").language, [goal], 0)
    user.answer("")
    text, end, _ = user.answer(row["turn"])
    agree = builtin("library").language.phrases["agree"]
    assert end is None
    assert text in agree if row["answer"] == "yes" else said(row["answer"].split()[0], text) and text not in agree


def test_random_letters_are_missed_and_counted() -> None:
    rng = random.Random(5)
    user = fresh()
    for count in range(1, PATIENCE):
        user.answer("".join(rng.choices(string.ascii_lowercase, k=12)))
        assert user.misses == count


# --- speed must not change meaning ------------------------------------------------------------------------------------

CUES = {name: cue for name, cue in vars(hearing).items() if isinstance(cue, hearing._Cue)}


@pytest.mark.parametrize("name", CUES)
@given(data=st.data())
@settings(max_examples=60)
def test_wherever_a_pattern_matches_one_of_its_stems_stands(name: str, data: st.DataObject) -> None:
    cue = CUES[name]
    pattern = cue._search.__self__  # type: ignore[attr-defined]
    text = data.draw(st.from_regex(pattern))
    if pattern.search(text):
        assert cue.possible(text) and cue.search(text), text


@given(st.sampled_from(["2", "Oak Street", "card", "a@b.c"]), st.text("2oak street.cdbOA@é ", max_size=12))
def test_a_value_is_heard_as_whole_words_whatever_the_case(value: str, text: str) -> None:
    slow = re.search(rf"(?<![\w@]){re.escape(value)}(?![\w@])", text, re.I)
    assert said(value, text) == bool(slow)


def test_ten_thousand_fuzzed_turns_raise_nothing_and_stop_nobody_who_has_patience() -> None:
    rng = random.Random(4)
    letters = string.printable + "🦄é\x00\x1b\u202e\ufeff"
    tokens = ["###STOP###", "###TRANSFER###", "<|im_end|>", "\n- ", "{goal}", "%s", "?", "sorry", "please", "done"]
    turns = 0
    while turns < 10_000:
        user = fresh(seed=turns)
        for _ in range(PATIENCE - 1):
            size = 100_000 if turns % 1000 == 0 else rng.choice((0, 1, 5, 40))
            text = "".join(rng.choices(letters, k=size)) + rng.choice(tokens[:6]) * rng.randrange(3)
            _, end, _ = user.answer(text)
            turns += 1
            assert end is None and not user.consented, text[:80]
