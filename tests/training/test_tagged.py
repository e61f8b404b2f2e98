"""Calls between tags: what bare text means is said by the tools' schemas, and nothing is lost or changed on the way."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from fakes.templates import FIT, template_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall, ToolSpec
from muarl_cli.training.chat_format import ChatFormat
from muarl_cli.training.hermes import parse_turn
from muarl_cli.training.tagged import Tagged
from muarl_cli.training.template_format import Dialect, Inexpressible, default_dialect, open_format
from muarl_cli.training.values import kinds_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "price": {"type": "number"},
        "paid": {"type": "boolean"},
        "none": {"type": "null"},
        "places": {"type": "array"},
        "terms": {"$ref": "#/$defs/terms"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["string", "integer"]},
        "size": {"enum": ["1", "2"]},
        "open": {},
    },
    "$defs": {"terms": {"type": "object"}},
}
TOOL = ToolSpec("book", "Book.", SCHEMA, ToolClass.WRITE)
STYLES = ("calls between tags", "arguments as keys and values")
XML = Tagged("<tool_call>\n<function=", ">\n", "<parameter=", ">\n", "\n</parameter>\n", "</function>\n</tool_call>")
PYTHON = Tagged(XML.open, XML.named, XML.key, XML.value, XML.end, XML.close, (("True", True), ("None", None)))


@lru_cache(maxsize=4)
def opened(name: str) -> ChatFormat:
    return open_format(template_tokenizer(FIT[name]), "full", "own")


def block(*fields: tuple[str, str], name: str = "book") -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in fields)
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def read(text: str, syntax: Tagged = XML) -> tuple[str, tuple[ToolCall, ...]]:
    return parse_turn(text, 0, syntax, [TOOL])


HARD = "</parameter>", "a</parameter>\n</function>", "<parameter=text>", "<tool_call>\n<function=", "</arg_value>"
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0\ufdd1"), max_size=12
) | st.sampled_from(
    ("", "\n", "\n\nx\n", " 5 ", "5", "true", "None", "null", '"q"', "{}", "</tool_call>", "<|im_end|>", *HARD)
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "count": st.integers(),
        "price": NUMBERS,
        "paid": st.booleans(),
        "none": st.none(),
        "places": st.lists(JSON, max_size=3),
        "terms": st.dictionaries(TEXTS, JSON, max_size=3),
        "note": st.none() | TEXTS,
        "size": st.sampled_from(["1", "2"]),
    },
)
TAGS = ("</parameter>", "<parameter=", "<tool_call>\n<function=", "<arg_key>", "</arg_value>", "<tool_call>")


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=80, deadline=None)
@given(calls=st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_a_demonstrated_call_is_read_back_the_same_to_the_character_or_is_refused(
    style: str, calls: list[dict[str, Any]]
) -> None:
    chat = opened(style)
    made = [ToolCall(f"call_{n}", "book", arguments) for n, arguments in enumerate(calls)]
    try:
        ids = chat.demonstrate("One moment.", made, [TOOL])
    except Inexpressible:
        ambiguous = any(isinstance(each.get("note"), str) for each in calls)
        assert ambiguous or any(tag in repr(calls).replace("\\n", "\n") for tag in TAGS)
        return
    words, found = chat.parse(chat.text_of(ids), [TOOL])
    assert words == "One moment."
    assert [repr(call.arguments) for call in found] == [repr(arguments) for arguments in calls]


OPENINGS = "<tool_call>", "<function=book>", "<function=", "<parameter=count>", "<parameter="
PIECES = st.sampled_from((*OPENINGS, "</tool_call>", "</function>", "</parameter>", ">", "5", '{"name": 1}', "a", "\n"))


@settings(max_examples=300)
@given(st.text(max_size=80) | st.lists(PIECES, max_size=24).map("".join))
def test_reading_never_raises_and_loses_no_character_that_is_no_blank(text: str) -> None:
    words, calls = read(text)
    assert bool(calls) == ("<tool_call>" in text or "<function=" in text)
    rest = text
    for call in calls:
        if call.problem:
            assert call.raw in rest and call.raw.startswith(("<tool_call>", "<function="))
            rest = rest.replace(call.raw, "", 1)
    if all(call.problem for call in calls):
        assert "".join(words.split()) == "".join(rest.split())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "48213", "48213"),
        ("text", "null", "null"),
        ("text", "\n a \n\n", "\n a \n\n"),
        ("size", "1", "1"),
        ("count", " 5 ", 5),
        ("price", "5", 5),
        ("price", "-2.50", -2.5),
        ("paid", "true", True),
        ("paid", "True", True),
        ("none", "None", None),
        ("note", "null", None),
        ("note", "5", "5"),
        ("either", "5", 5),
        ("either", "5.5", "5.5"),
        ("places", '["a", 1]', ["a", 1]),
        ("terms", '{"days": 3}', {"days": 3}),
        ("open", "[1]", [1]),
        ("open", "five", "five"),
        ("unknown", "true", True),
        ("unknown", '"quoted"', '"quoted"'),
    ],
)
def test_what_a_text_means_is_said_by_the_schema(key: str, text: str, value: Any) -> None:
    _, (call,) = read(block((key, text)), PYTHON)
    assert call.problem == "" and repr(call.arguments) == repr({key: value})


@pytest.mark.parametrize(("key", "text"), [("count", "five"), ("count", '"5"'), ("paid", "yes"), ("terms", "{'a': 1}")])
def test_a_text_that_is_not_what_its_schema_asks_for_stays_text_and_the_world_names_the_parameter(
    key: str, text: str
) -> None:
    _, (call,) = read(block((key, text)))
    assert call.problem == "" and call.arguments == {key: text}
    assert f"book: {key}:" in Toolbox((TOOL,)).problem(call)


def test_a_tool_that_nobody_offered_is_read_and_the_world_says_which_there_are() -> None:
    _, (call,) = read(block(("a", "1"), name="burn"))
    assert (call.name, call.arguments) == ("burn", {"a": 1})
    assert "unknown tool 'burn'" in Toolbox((TOOL,)).problem(call)


def test_words_and_several_calls_of_a_turn_are_read_in_order_however_their_blanks_are_set() -> None:
    tight = "<tool_call><function=book><parameter=text>a</parameter></function></tool_call>"
    words, calls = read(f"Wait.\n\n{block(('count', '1'))}\nOr\n{tight}{block(name='other')}")
    assert words == "Wait.\nOr"
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("call_0", "book", {"count": 1}),
        ("call_1", "book", {"text": "a"}),
        ("call_2", "other", {}),
    ]


GOOD = block(("count", "1"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD[:-1], "nor </function>"),
        (GOOD[:40], "after the name comes neither <parameter= nor </function>"),
        (GOOD.split("1")[0], "not closed by </parameter>"),
        (GOOD[:18], "does not begin with <tool_call><function=TOOL>"),
        (GOOD.replace("</function>\n", ""), "after the value of 'count' comes neither <parameter="),
        (GOOD.replace("</parameter>", ""), "the value of 'count' is not closed"),
        (GOOD.replace("<function=book>", "book"), "does not begin with <tool_call><function=TOOL>"),
        (GOOD.replace("<function=book>", "<function=>"), "no name"),
        (GOOD.removeprefix("<tool_call>\n"), "does not begin with <tool_call><function=TOOL>"),
        ('<tool_call>\n{"name": "book", "arguments": {}}\n</tool_call>', "does not begin with"),
        (block(("count", "1"), ("count", "2")), "'count' is given twice"),
        (block(("text", "y" * 40_000)), "characters"),
    ],
)
def test_a_malformed_call_says_what_is_wrong_keeps_its_text_and_leaves_the_next_one_alone(text: str, said: str) -> None:
    _, (alone,) = read(text)
    assert said in alone.problem and "<function=TOOL>" in alone.problem and alone.raw == text
    assert alone.arguments == {} and len(alone.problem) < 400
    _, (bad, fine) = read(f"{text}\n{GOOD}")
    assert bad.problem and fine == ToolCall("call_1", "book", {"count": 1})


def test_true_false_and_null_are_read_in_the_templates_own_spelling() -> None:
    spelt = {name: dict(opened(name).frames.syntax.spelt) for name in STYLES}  # type: ignore[attr-defined]
    assert spelt == {
        "calls between tags": {"True": True, "False": False, "None": None},
        "arguments as keys and values": {},
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": "a</parameter>b"},
        {"text": "<tool_call>\n<function="},
        {"note": "null"},
        {"count": "5"},
        {"either": "5"},
        {"a>b": 1},
        {"price": float("nan")},
    ],
)
def test_a_demonstration_that_the_syntax_cannot_say_is_refused_with_the_value(arguments: dict[str, Any]) -> None:
    with pytest.raises(Inexpressible, match="cannot be written") as caught:
        opened("calls between tags").demonstrate("", [ToolCall("call_0", "book", arguments)], [TOOL])
    assert next(iter(arguments)) in caught.value.where and caught.value.why and caught.value.next_step


def test_schemas_that_refer_combine_or_do_not_say_are_followed() -> None:
    every = kinds_of({}, {})
    loop: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert kinds_of(loop, loop) == kinds_of(True, {}) == kinds_of({"type": "float"}, {}) == every
    assert kinds_of({"allOf": [{"type": ["string", "null"]}, {"const": None}]}, {}) == {"null"}
    assert kinds_of({"oneOf": [{"type": "number"}, {"enum": ["any"]}]}, {}) == {"number", "integer", "string"}


def test_a_checkpoint_whose_template_writes_calls_between_tags_speaks_it_unasked() -> None:
    found = {name: default_dialect(template_tokenizer(FIT[name])) for name in (*STYLES, "ChatML with Hermes calls")}
    assert found == {**dict.fromkeys(STYLES, Dialect.OWN), "ChatML with Hermes calls": Dialect.NONTHINKING}
