"""EV-09: what counts as having told the user; denials and lists of all answers do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.events import ToolClass
from muarl_cli.scoring.communication import claims, tells
from muarl_cli.scoring.layers import book_of
from muarl_cli.scoring.rules import Rulebook
from muarl_cli.scoring.trace import Step
from muarl_cli.scoring.values import affirmed, names
from muarl_cli.worlds.domain import builtin


def _rules() -> tuple[Rulebook, dict[str, object]]:
    book = book_of(builtin("retail"))
    return book, {rule.id: rule for rule in book.rules}


def step(name: str, **arguments: object) -> Step:
    return Step(4, name, ToolClass.WRITE, arguments, name, False, 5, True)


OPTION = step("change_option", order_id="4821", item="desk", option="blue")
QUANTITY = step("change_quantity", order_id="4821", item="desk", quantity=3)
SPEED = step("change_shipping", order_id="4821", speed="express")
CANCEL = step("cancel_order", order_id="4821", reason="no longer needed")
TOLD = [
    (OPTION, "done, the desk in order 4821 is now blue. anything else?"),
    (OPTION, "The desk was changed from red to blue."),
    (OPTION, "Your Blue desk is on its way!"),
    (QUANTITY, "done, the quantity of the desk in order 4821 is now 3."),
    (QUANTITY, "You will get three desks."),
    (SPEED, "Order 4821 will be sent express, not standard."[:31]),
    (CANCEL, "Your order 4821 is cancelled."),
    (CANCEL, "I have cancelled the order (4821) for you."),
]
NOT_TOLD = [
    (OPTION, "ok. anything else?"),
    (OPTION, "the desk is not blue."),
    (OPTION, "the desk isn't blue yet."),
    (OPTION, "i could not make it blue."),
    (OPTION, "the colour can't be blue."),
    (OPTION, "it never was blue."),
    (OPTION, "red, blue, green, black, white, yellow, silver or brown."),
    (OPTION, "it is now red or blue or green."),
    (OPTION, "the desk has a bluebird on it."),
    (OPTION, "the desk is red instead of blue."),
    (QUANTITY, "the quantity is now 4."),
    (QUANTITY, "the quantity is not 3."),
    (QUANTITY, "it is 1, 2, 3, 4, 5, 6, 7 or 8."),
    (QUANTITY, "order 4831 has been changed."),
    (QUANTITY, "the price is 3.50."),
    (QUANTITY, "it was done."),
    (SPEED, "standard, express, overnight: one of these."),
    (SPEED, "it will not be sent express."),
    (CANCEL, "order 48210 is cancelled."),
    (CANCEL, "order 4821 was not cancelled."),
]


@pytest.mark.parametrize(("write", "text"), TOLD)
def test_a_plain_report_tells(write: Step, text: str) -> None:
    book, rules = _rules()
    assert tells(rules["tell_what_was_done"], book, write, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(("write", "text"), NOT_TOLD)
def test_a_denial_a_list_or_another_value_does_not_tell(write: Step, text: str) -> None:
    book, rules = _rules()
    assert not tells(rules["tell_what_was_done"], book, write, text)  # type: ignore[arg-type]


def test_there_are_twenty_probes() -> None:
    assert len(NOT_TOLD) == 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1093.34, "that is $1,093.34 in total"),
        ("1093.34", "that is $1,093.34 in total"),
        (7, "within a week"),
        (14, "it takes two weeks"),
        (2, "Two of them"),
        ("credit_card", "by credit card"),
        ("#W123", "order #W123."),
    ],
)
def test_typed_values_are_recognised(value: object, text: str) -> None:
    assert names(value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2, "order 4821"), (25, "25.50 euros"), ("482", "order 4821"), ("4821", "it costs 4821.50"), (5, "a fortnight")],
)
def test_parts_of_other_values_are_not(value: object, text: str) -> None:
    assert not names(value, text)


def test_only_statements_are_claims() -> None:
    _, rules = _rules()
    claim = rules["no_false_claims"]
    assert claims(claim, "done, it is blue.")  # type: ignore[arg-type]
    assert claims(claim, "I have cancelled your order. Anything else?")  # type: ignore[arg-type]
    for text in ("shall i get it done?", "it is not done.", "card well done. shall i go ahead?", "one moment."):
        assert not claims(claim, text)  # type: ignore[arg-type]


@given(st.text(max_size=200), st.one_of(st.text(max_size=20), st.integers(), st.floats(allow_nan=False)))
def test_any_text_and_value_are_safe_and_affirmed_implies_named(text: str, value: object) -> None:
    if affirmed(value, text):
        assert names(value, text)


@given(st.integers(0, 10**6))
def test_a_number_names_itself_and_no_other(number: int) -> None:
    assert names(number, f"it is {number} today") and names(number, f"it is {number:,}.")
    assert not names(number + 1, f"it is {number} today")
