"""Scenarios that are only described: what a tool may do is read off its name, and what is not known writes."""

from __future__ import annotations

import pytest

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.described import guessed_class

READ, WRITE = ToolClass.READ, ToolClass.WRITE


@pytest.mark.parametrize(
    ("name", "klass"),
    [
        ("get_order", READ),
        ("getOrder", READ),
        ("list-orders", READ),
        ("IsOpen", READ),
        ("lookup_order", READ),
        ("issue_refund", WRITE),
        ("checkout_cart", WRITE),
        ("cancelOrder", WRITE),
        ("hasten_delivery", WRITE),
        ("calculate", ToolClass.GENERIC),
        ("transfer_to_human_agents", ToolClass.TERMINAL),
        ("", WRITE),
    ],
)
def test_a_verb_of_looking_reads_and_a_word_that_merely_begins_like_one_writes(name: str, klass: ToolClass) -> None:
    assert guessed_class(name) is klass
