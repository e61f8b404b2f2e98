"""Which rows are fed together: all of them once, and little padding where there is much to feed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.engines.generation import PADDING, PREFILL_LEAST, PREFILL_TOKENS, _fed_together


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=64))
def test_rows_are_fed_once_and_padding_stays_small(lengths: list[int]) -> None:
    fresh = [range(length) for length in sorted(lengths)]
    first, fed = 0, []
    while first < len(fresh):
        last = _fed_together(fresh, first)
        part = [len(row) for row in fresh[first:last]]
        padded = max(part) * len(part)
        assert len(part) == 1 or padded <= max(PADDING * sum(part), PREFILL_LEAST)
        assert len(part) == 1 or padded <= PREFILL_TOKENS
        fed += part
        first = last
    assert fed == sorted(lengths)


def test_rows_of_equal_length_are_fed_at_once() -> None:
    assert _fed_together([range(60)] * 32, 0) == 32
