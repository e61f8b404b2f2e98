"""EV-06: the confirm rule against hand-labelled turns, and what no yes ever covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scoring.episode_maker import Talk

from muarl_cli.conversation.events import ToolClass
from muarl_cli.scoring.confirm import Reply, disagreement, reply_of
from muarl_cli.scoring.rules import parse_rules
from muarl_cli.scoring.trace import read

LABELLED: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "confirmations.yaml").read_text())
(RULE,) = parse_rules([{"id": "confirm", "kind": "confirm", "what": "", "without": ["customer_id"]}], "here")
VALUES = {"customer_id": "1111", "order_id": "4821", "item": "desk", "option": "blue"}
ASK = "change the desk in order 4821 to blue. shall i go ahead?"


def confirmed(talk: Talk) -> bool:
    trace = read(talk.call("change_option", ToolClass.WRITE, True, VALUES).end())
    return not disagreement(RULE, trace, trace.writes[-1])[0]


def verdicts() -> list[tuple[str, bool, bool]]:
    """(what was said, what a person says of it, what the rule says of it)"""
    rows = []
    for label, texts in LABELLED["replies"].items():
        name = {True: "yes", False: "no"}.get(label, label)  # YAML reads yes and no as booleans
        rows += [(text, name == "yes", confirmed(Talk().user("hi").agent(ASK).user(str(text)))) for text in texts]
    for label, texts in LABELLED["proposals"].items():
        rows += [(t, label == "right", confirmed(Talk().user("hi").agent(t).user("yes, please."))) for t in texts]
    return rows


def test_precision_and_recall_on_hand_labelled_turns() -> None:
    rows = verdicts()
    assert len(rows) >= 90
    said_yes = [row for row in rows if row[2]]
    should = [row for row in rows if row[1]]
    precision = sum(truth for _, truth, _ in said_yes) / len(said_yes)
    recall = sum(found for _, _, found in should) / len(should)
    wrong = [row for row in rows if row[1] != row[2]]
    assert precision >= 0.95 and recall >= 0.90, wrong


def test_a_yes_that_is_taken_back_is_no_consent() -> None:
    talk = Talk().user("hi").agent(ASK).user("yes, please.").agent("one moment.").user("wait, stop.")
    assert not confirmed(talk)


def test_a_second_proposal_after_a_change_counts() -> None:
    green = ASK.replace("blue", "green")
    talk = Talk().user("hi").agent(green).user("actually, make it blue.").agent(ASK).user("yes.")
    assert confirmed(talk)


def test_a_yes_to_another_proposal_counts_for_nothing() -> None:
    talk = Talk().user("hi").agent(ASK).user("no, green.").agent(ASK.replace("blue", "green")).user("yes.")
    assert not confirmed(talk)


def test_a_user_who_asks_for_it_at_once_has_not_confirmed() -> None:
    assert not confirmed(Talk().user("change the desk in order 4821 to blue, now, yes."))


def test_one_yes_may_cover_two_writes_that_it_named() -> None:
    both = "change the desk in order 4821 to blue and the desk in order 4821 to 1111 blue. shall i go ahead?"
    talk = Talk().user("hi").agent(both).user("yes.").call("change_option", ToolClass.WRITE, True, VALUES)
    assert confirmed(talk)


@pytest.mark.parametrize("text", ["", "   ", "?", "…", "ja"])
def test_what_cannot_be_read_is_no_yes(text: str) -> None:
    assert reply_of(text) is not Reply.YES


@given(st.text(max_size=300))
def test_any_words_are_safe_and_a_leading_no_is_never_a_yes(text: str) -> None:
    assert reply_of(text) in Reply
    assert reply_of("no, " + text) is not Reply.YES
