from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.engines.chat import Finish, RawCall, parse_reply

_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "tool_calls", "function", "name", "arguments", "id",
                             "finish_reason", "usage", "prompt_tokens", "refusal", "text"]), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["choices", "usage", "model"]), _json, max_size=3))
def test_no_reply_whatever_its_shape_raises(reply: dict[str, Any]) -> None:
    parsed = parse_reply(reply)
    assert isinstance(parsed.text, str)
    assert isinstance(parsed.finish, Finish)


def _reply(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (_reply({"content": "hi"}), Finish.STOP),
        (_reply({"content": None}), Finish.EMPTY),
        (_reply({"content": "  \n"}), Finish.EMPTY),
        (_reply({"content": ""}, "content_filter"), Finish.FILTERED),
        (_reply({"content": None, "refusal": "no"}), Finish.FILTERED),
        (_reply({"content": "cut he"}, "length"), Finish.LENGTH),
        ({"choices": []}, Finish.EMPTY),
    ],
)
def test_kinds_of_replies_are_told_apart(reply: dict[str, Any], finish: Finish) -> None:
    assert parse_reply(reply).finish is finish


def test_arguments_sent_as_an_object_and_content_in_parts_are_read() -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]
    parsed = parse_reply(_reply({"content": [{"type": "text", "text": "so"}], "tool_calls": calls}))
    assert parsed.calls == (RawCall("a", "f", '{"x": 1}'),)
    assert (parsed.text, parsed.finish) == ("so", Finish.TOOL_CALLS)
