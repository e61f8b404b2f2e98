"""Rows that come and go: which of them are fed together, and that nobody draws otherwise for the others' sake."""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from engines import contract
from engines.small_models import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.generation import PADDING, PREFILL_LEAST, PREFILL_TOKENS, Batch, Drawn, Row, _fed_together
from muarl_cli.engines.protocol import Sampling

MODEL = make_model()


def row(number: int, fed: int, drawn: int, stops: tuple[int, ...] = ()) -> Row:
    draw = random.Random(number)
    ids = tuple(draw.randrange(7, contract.VOCAB) for _ in range(fed))
    return Row(ids, Sampling(1.0, 1.0, drawn, stops, number), 0, None)


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


def test_a_row_that_nobody_wants_any_more_leaves_with_what_it_has() -> None:
    batch = Batch(CachedDecoder(MODEL), torch.float32, most=4)
    kept, cut = row(1, 9, 40), row(2, 9, 40)
    with torch.inference_mode():
        batch.join([kept, cut])
        assert batch.draw(lambda: True) == []
        batch.cut([cut])
        ((left, drawn),) = batch.draw(lambda: False)
        assert left is cut and len(drawn.ids) < 10
        ((left, drawn),) = batch.draw(lambda: False)
    assert left is kept and len(drawn.ids) == 40 and batch.rows == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=8))
def test_rows_that_come_and_go_draw_what_they_draw_alone(shapes: list[tuple[int, int, int]]) -> None:
    """Each row comes after so many visits of the batch; its cache is that of a row which had the batch for itself."""
    decoder = CachedDecoder(MODEL)
    rows = [row(n, fed, drawn, (3, 4, 5, 6)) for n, (fed, drawn, _) in enumerate(shapes)]
    coming = sorted(range(len(rows)), key=lambda n: shapes[n][2])
    found: dict[Row, Drawn] = {}
    batch = Batch(decoder, torch.float32, most=len(rows))
    visit = 0
    with torch.inference_mode():
        while coming or batch.rows:
            now = [n for n in coming if shapes[n][2] <= visit]
            coming = [n for n in coming if n not in now]
            if now:
                batch.join([rows[n] for n in now])
            if batch.rows:
                found |= dict(batch.draw(lambda: True))
            visit += 1
        for each in rows:
            alone = Batch(decoder, torch.float32, most=1)
            alone.join([replace(each)])
            left: list[tuple[Row, Drawn]] = []
            while not left:
                left = alone.draw(lambda: False)
            assert found[each].ids == left[0][1].ids and found[each].stopped == left[0][1].stopped
            torch.testing.assert_close(found[each].cache, left[0][1].cache, atol=2e-5, rtol=1e-4)
