"""Parsing of sampled turns: whatever comes, nothing raises and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.tools import ToolCall
from muarl_cli.training.hermes import CLOSE, OPEN, parse_turn, render_turn

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20)


def _block(body: str) -> str:
    return f"{OPEN}\n{body}\n{CLOSE}"


@given(
    st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=8), JSON, max_size=3)), max_size=4), st.integers(0, 9)
)
def test_rendered_calls_parse_back_to_themselves(calls: list[tuple[str, dict[str, Any]]], first: int) -> None:
    made = tuple(ToolCall(f"call_{first + n}", name, arguments) for n, (name, arguments) in enumerate(calls))
    assert parse_turn(render_turn("I will look.", made), first) == ("I will look.", made)


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([OPEN, CLOSE, "{", "}", '"name":', '"a"', " ", "x"])).map("".join)
)
def test_parsing_never_raises_and_every_opening_becomes_a_call(text: str) -> None:
    words, calls = parse_turn(text)
    assert bool(calls) == (OPEN in text)
    assert all(call.problem == "" or (call.raw in text and call.raw.startswith(OPEN)) for call in calls)
    assert [call.id for call in calls] == [f"call_{n}" for n in range(len(calls))]
    if not calls:
        assert words == text.strip()


def test_a_tag_inside_a_json_string_does_not_end_the_call() -> None:
    text = _block('{"name": "note", "arguments": {"text": "say </tool_call> and <tool_call>"}}')
    _, (call,) = parse_turn(text)
    assert call.problem == "" and call.arguments == {"text": "say </tool_call> and <tool_call>"}


def test_arguments_written_as_json_text_are_read() -> None:
    _, (call,) = parse_turn(_block('{"name": "a", "arguments": "{\\"x\\": 1}"}'))
    assert call.problem == "" and call.arguments == {"x": 1}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"name": "a", "arguments": {"x": }}', "not valid JSON"),
        ('{"name": "a", "arguments": [1]}', "must be a JSON object"),
        ('{"arguments": {}}', "no name"),
        ('{"name": 3, "arguments": {}}', "no name"),
        ('{"name": "a", "order_id": "1"}', "unknown keys beside name and arguments: order_id"),
        ('["a"]', "must be a JSON object"),
        ('{"name": "a", "arguments": {"x": NaN}}', "not valid JSON"),
        ("", "empty"),
        ('{"name": "a", "arguments": {"x": ' + "[" * 5000 + "]" * 5000 + "}}", "nested deeper"),
        ('{"name": "a", "arguments": {"x": "' + "y" * 1_000_000 + '"}}', "characters"),
    ],
)
def test_a_malformed_call_says_what_is_wrong_and_what_would_be_right(body: str, said: str) -> None:
    _, (call,) = parse_turn(_block(body))
    assert said in call.problem and '{"name": TOOL, "arguments": {...}}' in call.problem
    assert call.raw == _block(body)
    assert len(call.problem) < 400


def test_a_call_that_is_not_closed_is_malformed_and_keeps_its_name() -> None:
    words, calls = parse_turn(f'Wait.\n{OPEN}\n{{"name": "get_order_details", "arguments": {{}}}}')
    assert words == "Wait." and calls[0].name == "get_order_details" and "not closed" in calls[0].problem


def test_an_unclosed_call_does_not_swallow_the_next_one() -> None:
    good = _block('{"name": "b", "arguments": {}}')
    _, (bad, fine) = parse_turn(f'{OPEN}\n{{"name": "a"\n{good}')
    assert bad.problem and fine == ToolCall("call_1", "b", {})
