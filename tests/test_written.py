"""Requests that are put together from parts are the bytes that a plain dump would be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.written import Written, encoded

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
ITEMS = st.one_of(JSON, OBJECTS.map(Written))


@given(st.dictionaries(st.text(max_size=6), st.one_of(JSON, st.lists(ITEMS, max_size=4)), max_size=4))
def test_a_request_in_parts_is_the_same_bytes(body: dict[str, Any]) -> None:
    plain = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        wanted = plain.encode()
    except UnicodeEncodeError:
        return
    assert encoded(body) == wanted == encoded(body)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError):
        encoded({"messages": [{"x": float("nan")}]})
