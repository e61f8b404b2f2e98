"""Orders and the learning rate: pure functions with nothing lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes.toys import toy_row
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.training.optim import lr_at
from muarl_cli.training.order import epoch_order, rows_digest


@given(st.integers(1, 200), st.integers(0, 2**62), st.integers(0, 50))
def test_the_order_of_an_epoch_is_a_permutation_of_its_own(count: int, seed: int, epoch: int) -> None:
    torch.manual_seed(epoch)  # a neighbour's draws must not matter
    order = epoch_order(count, seed, epoch)
    torch.manual_seed(epoch + 1)
    assert sorted(order) == list(range(count))
    assert order == epoch_order(count, seed, epoch)
    if count > 20:
        assert order != epoch_order(count, seed, epoch + 1)


def test_the_digest_of_rows_sees_ids_owners_and_order() -> None:
    a, b = toy_row(1, 9), toy_row(2, 9)
    others = [[b, a], [a], [a, TokenRow(b.ids, a.owners, b.logprobs)], [a, replace(b, ids=(*b.ids[:-1], 41))]]
    assert len({rows_digest(rows) for rows in [[a, b], *others]}) == 5
    assert rows_digest([a, replace(b, logprobs=a.logprobs)]) == rows_digest([a, b])


@pytest.mark.parametrize(
    ("step", "schedule", "progress", "expected"),
    [
        (0, "constant", None, 0.25),
        (3, "constant", None, 1.0),
        (400, "constant", None, 1.0),
        (4, "cosine", None, 1.0),
        (54, "cosine", None, 0.5),
        (104, "cosine", None, 0.0),
        (29, "linear", None, 0.75),
        (204, "linear", None, 0.0),
        (9, "linear", 0.25, 0.75),
        (1, "linear", 0.5, 0.25),
        (9, "cosine", 1.5, 0.0),
    ],
)
def test_the_learning_rate_rises_and_follows_its_schedule(
    step: int, schedule: str, progress: float | None, expected: float
) -> None:
    assert lr_at(step, 104, 2.0, schedule, 4, progress) == pytest.approx(2.0 * expected)


@given(st.integers(0, 500), st.integers(0, 300), st.sampled_from(["constant", "cosine", "linear"]), st.integers(0, 50))
def test_the_learning_rate_stays_within_its_bounds(step: int, total: int, schedule: str, warmup: int) -> None:
    assert 0.0 <= lr_at(step, total, 1e-3, schedule, warmup) <= 1e-3
    assert lr_at(0, 0, 1e-3, schedule, 0) == 1e-3
