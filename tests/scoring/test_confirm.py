"""EV-06: the confirm rule against hand-labelled turns, and what no yes ever covers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scoring.episode_maker import Talk

from muarl_cli.conversation.events import ToolClass
from muarl_cli.scoring.confirm import Reply, disagreement, reply_of
from muarl_cli.scoring.layers import book_of
from muarl_cli.scoring.rules import Rule, parse_rules, shipped_rules
from muarl_cli.scoring.trace import read
from muarl_cli.worlds.domain import builtin

LABELLED: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "confirmations.yaml").read_text())
WRITES: list[dict[Any, Any]] = yaml.safe_load((Path(__file__).parent / "confirmed_writes.yaml").read_text())
(RULE,) = parse_rules([{"id": "confirm", "kind": "confirm", "what": "", "without": ["customer_id"]}], "here")
VALUES = {"customer_id": "1111", "order_id": "4821", "item": "desk", "option": "blue"}
ASK = "change the desk in order 4821 to blue. shall i go ahead?"


def confirmed(talk: Talk) -> bool:
    trace = read(talk.call("change_option", ToolClass.WRITE, True, VALUES).end())
    return not disagreement(RULE, trace, trace.writes[-1])[0]


def turns() -> list[tuple[str, bool, bool]]:
    """(what was said, what a person says of it, what the rule says of it), around one write"""
    rows = []
    for label, texts in LABELLED["replies"].items():
        name = {True: "yes", False: "no"}.get(label, label)  # YAML reads yes and no as booleans
        rows += [(text, name == "yes", confirmed(Talk().user("hi").agent(ASK).user(str(text)))) for text in texts]
    for label, texts in LABELLED["proposals"].items():
        rows += [(t, label == "right", confirmed(Talk().user("hi").agent(t).user("yes, please."))) for t in texts]
    return rows


def conversations() -> list[tuple[str, bool, bool]]:
    """The same over the writes of several desks, each under its own scenario's rule."""
    rows = []
    for block in WRITES:
        rule = rule_of(block["scenario"])
        for label in (True, False):
            for lines in block[label]:
                talk = Talk().user("hi")
                for line in lines:
                    who, text = line.split(": ", 1)
                    talk = talk.agent(text) if who == "A" else talk.user(text)
                trace = read(talk.call(block["write"], ToolClass.WRITE, True, block["values"]).end())
                found = not disagreement(rule, trace, trace.writes[-1])[0]
                rows.append((f"{block['write']}: {' / '.join(lines)}", label, found))
    return rows


def rule_of(scenario: str) -> Rule:
    """The confirm rule of a scenario, as it is shipped."""
    source, name = scenario.split(":")
    rules = book_of(builtin(name)).rules if source == "builtin" else shipped_rules(source, name)
    return next(rule for rule in rules if rule.kind == "confirm")


def agreement(rows: list[tuple[str, bool, bool]]) -> tuple[float, float, list[tuple[str, bool, bool]]]:
    """Precision, recall, and the rows that the rule gets wrong."""
    said_yes = [row for row in rows if row[2]]
    should = [row for row in rows if row[1]]
    precision = sum(truth for _, truth, _ in said_yes) / len(said_yes)
    recall = sum(found for _, _, found in should) / len(should)
    return precision, recall, [row for row in rows if row[1] != row[2]]


def test_precision_and_recall_on_two_hundred_hand_labelled_writes() -> None:
    rows = turns() + conversations()
    assert len({row[0] for row in rows}) == len(rows) >= 200
    precision, recall, wrong = agreement(rows)
    assert precision >= 0.95 and recall >= 0.90, wrong


@pytest.mark.parametrize("rows", [turns, conversations])
def test_neither_half_of_the_labels_hides_the_other(rows: Callable[[], list[tuple[str, bool, bool]]]) -> None:
    precision, recall, wrong = agreement(rows())
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
