"""Calls as a list of Python calls: read without running anything, and malformed whole or not at all."""

from __future__ import annotations

from functools import lru_cache

import pytest
from fakes.templates import FIT, template_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.tools import ToolCall
from muarl_cli.training.chat_format import ChatFormat
from muarl_cli.training.hermes import parse_turn
from muarl_cli.training.pythonic import Pythonic
from muarl_cli.training.template_format import Inexpressible, open_format

LIST = Pythonic("<|call|>", "<|end|>")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0\ufdd1"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@lru_cache(maxsize=1)
def opened() -> ChatFormat:
    return open_format(template_tokenizer(FIT["calls as Python"]), "full", "own")


def read(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    return parse_turn(text, 0, LIST)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["from", "key", "größe"]), JSON, max_size=3), min_size=1, max_size=3))
def test_a_demonstrated_call_is_read_back_the_same_or_is_refused(calls: list[dict[str, object]]) -> None:
    chat = opened()
    made = [ToolCall(f"call_{n}", "book", arguments) for n, arguments in enumerate(calls)]
    try:
        ids = chat.demonstrate("One moment.", made, [])
    except Inexpressible:  # Python's source has no such character, or reads it as a line break
        assert any(sign in repr(calls) for sign in ("\\x00", "\\r"))
        return
    words, found = chat.parse(chat.text_of(ids), [])
    assert words == "One moment." and [repr(c.arguments) for c in found] == [repr(arguments) for arguments in calls]


def test_python_and_json_values_are_read_and_tags_within_quotes_end_nothing() -> None:
    inner = "[a.b(from='it\\'s ]<|end|>', n=-2.5, ok=True, no=null, xs=[1, 'a', {'k': None}]), c()]"
    words, (one, two) = read(f"Wait. <|call|>{inner}<|end|> Done.")
    assert words == "Wait.\nDone." and (two.name, two.arguments, two.id) == ("c", {}, "call_1")
    assert one.name == "a.b" and one.problem == ""
    assert one.arguments == {"from": "it's ]<|end|>", "n": -2.5, "ok": True, "no": None, "xs": [1, "a", {"k": None}]}


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("a(x=1)", "no list of calls"),
        ("[a(x=1)", "after the call of a"),
        ("[a(x=1), ]", "does not begin with TOOL("),
        ("[a(1)]", "does not begin with KEY="),
        ("[a(x=1, x=2)]", "x is given twice"),
        ("[a(x=open('f'))]", "neither a Python literal nor JSON"),
        ("[a(x={1, 2})]", "neither a Python literal nor JSON"),
        ("[a(x=1e999)]", "neither a Python literal nor JSON"),
        ("[a(x=" + "[" * 60 + "]" * 60 + ")]", "x"),
        ("[a(x='y" * 3, "x"),
        ("[a(x='" + "y" * 40_000 + "')]", "characters"),
    ],
)
def test_a_malformed_list_says_what_is_wrong_and_leaves_the_next_one_alone(inner: str, said: str) -> None:
    text = f"<|call|>{inner}<|end|>"
    _, (bad, fine) = read(f"{text}<|call|>[b(x=1)]<|end|>")
    assert said in bad.problem and "[TOOL(KEY=VALUE, ...), ...]" in bad.problem and bad.raw == text
    assert fine == ToolCall("call_1", "b", {"x": 1})
    _, (cut,) = read(f"<|call|>{inner}")
    assert cut.problem and cut.raw == f"<|call|>{inner}"


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["<|call|>", "<|end|>", "[", "]", "a(", "x=", "'", ")", ",", "1", " "])).map("".join)
)
def test_reading_never_raises_and_every_opening_becomes_a_call(text: str) -> None:
    _, calls = read(text)
    assert bool(calls) == ("<|call|>" in text)
    assert all(not call.problem or call.raw in text for call in calls)
