"""The check of a call: it never raises, and an error names what would be valid."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.talks import spec
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import MAX_ARGUMENT_CHARS, Toolbox, ToolCall, parse_arguments

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "zip": {"type": "integer"}},
    "required": ["street", "zip"],
    "additionalProperties": False,
}
BOX = Toolbox((spec("send", ToolClass.WRITE, address=ADDRESS), spec("look", ToolClass.READ)))


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
@settings(max_examples=200)
def test_parsing_any_text_gives_arguments_or_a_problem_and_never_raises(text: str) -> None:
    arguments, problem = parse_arguments(text)
    assert isinstance(arguments, dict) and (not problem or arguments == {})


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=8), JSON, max_size=4))
@settings(max_examples=200)
def test_checking_any_call_never_raises_and_answers_briefly(name: str, arguments: dict[str, Any]) -> None:
    for tool in (name, "send", "look"):
        assert len(BOX.problem(ToolCall("c", tool, arguments))) < 600


def test_a_good_nested_call_has_no_problem() -> None:
    assert BOX.problem(ToolCall("c", "send", {"address": {"street": "oak", "zip": 7}})) == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"address": {"street": "oak", "zip": "seven"}}, "address.zip"),
        ({"address": {"street": "oak"}}, "'zip' is a required property"),
        ({"address": "oak 7"}, "address"),
        ({}, "Arguments: address"),
    ],
)
def test_a_schema_error_names_the_place_and_the_arguments(arguments: dict[str, Any], expected: str) -> None:
    problem = BOX.problem(ToolCall("c", "send", arguments))
    assert expected in problem and problem.startswith("send:")


def test_empty_arguments_are_an_empty_object() -> None:
    assert parse_arguments("") == ({}, "") == parse_arguments("  \n")


def test_the_longest_accepted_text_is_accepted() -> None:
    text = '{"a": "' + "x" * (MAX_ARGUMENT_CHARS - 9) + '"}'
    assert parse_arguments(text)[1] == ""
    assert "at most" in parse_arguments(text + " ")[1]


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Toolbox((spec("a"), spec("a")))


def test_openai_form_shows_the_full_schema() -> None:
    shown = BOX["send"].openai()
    assert shown["type"] == "function"
    assert shown["function"]["parameters"]["properties"]["address"] == ADDRESS
