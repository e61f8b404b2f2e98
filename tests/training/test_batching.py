"""Splits, orders and the learning rate: pure functions with nothing lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes.toys import toy_row
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.training.batching import epoch_order, micro_batches, rows_digest, split_by_tokens
from muarl_cli.training.optim import lr_at

LENGTHS = st.lists(st.integers(1, 300), max_size=40)


@given(LENGTHS, st.integers(1, 2000))
def test_a_split_holds_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = split_by_tokens(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert min(lengths[i] for i in batch) >= 0.75 * longest


@given(LENGTHS, st.integers(1, 2000))
def test_the_largest_rows_come_first(lengths: list[int], budget: int) -> None:
    heads = [lengths[batch[0]] for batch in split_by_tokens(lengths, budget)]
    assert heads == sorted(lengths, reverse=True)[:1] + heads[1:]
    assert heads == sorted(heads, reverse=True)


def test_micro_batches_carry_each_agent_token_with_its_logprob_and_weight() -> None:
    rows = [toy_row(seed, length) for seed, length in enumerate((5, 30, 12, 29, 3))]
    silent = replace(rows[0], owners=(int(Owner.USER),) * 5)
    weights = [0.5, -1.0, 2.0, 3.0, -4.0, 9.0]
    seen = []
    for batch in micro_batches([*rows, silent], weights, 64, "cpu"):
        assert batch.ids.numel() <= 64
        seen += list(zip(batch.targets.tolist(), batch.sampled.tolist(), batch.weights.tolist(), strict=True))
    expected = [
        (row.ids[t], pytest.approx(row.logprobs[t], abs=1e-6), weight)
        for row, weight in zip(rows, weights, strict=False)
        for t in range(1, len(row.ids))
        if row.owners[t] == Owner.AGENT
    ]
    assert len(seen) == len(expected)
    assert sorted(seen) == sorted(expected, key=lambda entry: (entry[0], entry[1].expected, entry[2]))


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
