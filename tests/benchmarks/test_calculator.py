from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.benchmarks.calculator import calculate


@pytest.mark.parametrize(
    "hostile",
    ["9**9**9", "().__class__", "(" * 10_000, "1/0", "", "1 2", "()", "(-8)**0.5", "9" * 200, "0**-1", "2**-99999"],
)
def test_hostile_expressions_are_refused_with_a_reason(hostile: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        calculate(hostile)


@given(st.text(alphabet="0123456789+-*/(). ", max_size=220))
def test_any_text_gives_a_number_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        float(calculate(text))


@given(st.integers(-9999, 9999), st.integers(-9999, 9999), st.integers(1, 99))
def test_results_equal_plain_arithmetic(a: int, b: int, c: int) -> None:
    assert calculate(f"({a}) * {c} - ({b}) / {c}") == str(round(float(a * c - b / c), 2))
