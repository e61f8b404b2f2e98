"""Packed lines with shared beginnings against the plain forward pass, row by row."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from fakes.toys import VOCAB, shared_toy, toy_model, toy_row
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import MuarlError
from muarl_cli.training import attention
from muarl_cli.training.forward import token_values
from muarl_cli.training.packing import Span, agent_places, micro_batches, plan


def family(seed: int, root: int, tails: list[int]) -> list[TokenRow]:
    """Rows that begin with the same `root` tokens; some of those are the agent's."""
    draw = random.Random(seed)
    start = toy_row(seed, root, holes=0.9) if root else None
    rows = []
    for number, tail in enumerate(tails):
        rest = toy_row(1000 * seed + number, max(2, tail))
        ids = (*(start.ids if start else ()), draw.randrange(VOCAB), *rest.ids)
        owners = (*(start.owners if start else ()), int(Owner.USER), *rest.owners)
        rows.append(TokenRow(ids, owners, (*(start.logprobs if start else ()), 0.0, *rest.logprobs)))
    return rows


def plain(model: Any, rows: list[TokenRow], temperature: float = 1.0) -> dict[tuple[int, int], torch.Tensor]:
    """The log-probability of each agent token from the model's own forward pass on that row alone."""
    found = {}
    for index, row in enumerate(rows):
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].float() / temperature
        for number, place in enumerate(agent_places(row)):
            found[index, number] = torch.log_softmax(logits[place - 1], -1)[row.ids[place]]
    return found


def packed(model: Any, rows: list[TokenRow], budget: int, **choice: Any) -> dict[tuple[int, int], torch.Tensor]:
    found = {}
    for batch in micro_batches(rows, budget, "cpu", **choice):
        values = token_values(model, batch).logprobs
        for index, number, value in zip(batch.item.tolist(), batch.nth.tolist(), values, strict=True):
            assert (index, number) not in found
            found[index, number] = value
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([0, 33, 50, 70]),
    st.lists(st.integers(2, 30), min_size=1, max_size=5),
    st.integers(40, 400),
)
def test_a_shared_beginning_changes_no_value(seed: int, root: int, tails: list[int], budget: int) -> None:
    rows = [*family(seed, root, tails), *family(seed + 1, 40, [5, 9])]
    with torch.no_grad():
        expected, found = plain(shared_toy(), rows), packed(shared_toy(), rows, budget)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert float(found[key]) == pytest.approx(float(value), abs=2e-5), key


def gradients(model: Any, values: dict[tuple[int, int], torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    draw = random.Random(5)
    sum((draw.uniform(-1, 1) * values[key] for key in sorted(values)), torch.zeros(())).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("share", [True, False])
def test_gradients_through_a_shared_beginning_are_exact(share: bool, checkpointing: bool) -> None:
    """Also where layers are computed again in the backward pass, and with continuations of different lengths."""
    rows = family(3, 64, [20, 7, 33, 2])
    model = toy_model(num_hidden_layers=2, max_position_embeddings=256)
    expected = gradients(model, plain(model, rows))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    with attention.packed_attention(model):
        found = gradients(model, packed(model, rows, 10_000, share=share))
    largest = max(float(each.abs().max()) for each in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * max(1.0, largest))


def test_a_shared_beginning_is_computed_once() -> None:
    rows = family(4, 64, [10] * 8)
    (shared,) = micro_batches(rows, 10_000, "cpu")
    (alone,) = micro_batches(rows, 10_000, "cpu", share=False)
    assert alone.ids.numel() == sum(len(row.ids) for row in rows)
    assert shared.ids.numel() == alone.ids.numel() - 7 * 64
    assert shared.spans[0] == Span(0, 64) and all(s.root_end == 64 for s in shared.spans[1:])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(3, 60)), min_size=1, max_size=20),
    st.integers(10, 300),
    st.booleans(),
)
def test_every_agent_token_appears_once_within_the_budget(
    shapes: list[tuple[int, int]], budget: int, share: bool
) -> None:
    starts = [toy_row(seed, 64).ids for seed in range(3)]
    rows = []
    for number, (kind, length) in enumerate(shapes):
        row = toy_row(number, length)
        extra = starts[kind] if kind < 3 else ()
        pad = (int(Owner.TEMPLATE),) * len(extra)
        rows.append(TokenRow((*extra, *row.ids), (*pad, *row.owners), (*(0.0,) * len(extra), *row.logprobs)))
    seen = []
    for batch in micro_batches(rows, budget, "cpu", share=share):
        assert batch.ids.numel() <= budget or len({*batch.item.tolist()}) == 1
        triples = zip(batch.item.tolist(), batch.nth.tolist(), batch.targets.tolist(), batch.sampled, strict=True)
        for item, nth, target, sampled in triples:
            place = agent_places(rows[item])[nth]
            assert (target, float(sampled)) == (rows[item].ids[place], pytest.approx(rows[item].logprobs[place]))
            seen.append((item, nth))
    assert sorted(seen) == [(i, n) for i, row in enumerate(rows) for n in range(len(agent_places(row)))]


@given(st.lists(st.integers(3, 40), min_size=2, max_size=12), st.integers(20, 200))
def test_the_rows_of_an_episode_stay_together(lengths: list[int], budget: int) -> None:
    rows = [toy_row(seed, length) for seed, length in enumerate(lengths)]
    units = [index // 2 for index in range(len(rows))]
    places = [{i for family_ in batch for i in family_.members} for batch in plan(rows, units, budget)]
    for unit in set(units):
        members = {i for i, u in enumerate(units) if u == unit}
        assert any(members <= batch for batch in places)


@pytest.mark.parametrize("block", [4, 7, 1024])
def test_blocks_of_queries_and_a_sliding_window_change_what_they_should(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", block)
    rows = family(6, 40, [15, 22])
    with torch.no_grad():
        for changes in ({}, {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}):
            model = toy_model(max_position_embeddings=256, **changes)
            expected, found = plain(model, rows), packed(model, rows, 1000)
            for key, value in expected.items():
                assert float(found[key]) == pytest.approx(float(value), abs=2e-5), (changes, key)


def test_the_model_is_as_it_was_afterwards_and_a_model_without_the_hook_is_refused() -> None:
    model = toy_model()
    before = model.config._attn_implementation
    (batch,) = micro_batches(family(1, 40, [5]), 100, "cpu")
    token_values(model, batch)
    assert model.config._attn_implementation == before
    model.model._supports_attention_backend = False
    with pytest.raises(MuarlError, match="packed rows"):
        token_values(model, batch)


@pytest.mark.parametrize("chunk", [1, 3 * VOCAB, 10**9])
def test_the_head_in_chunks_gives_the_same_values_and_gradients(chunk: int) -> None:
    model = toy_model()
    (batch,) = micro_batches([toy_row(1, 30), toy_row(2, 25)], 100, "cpu")
    results = []
    for size in (chunk, 10**9):
        model.zero_grad(set_to_none=True)
        values = token_values(model, batch, 0.8, size)
        values.logprobs.square().sum().backward()
        results.append((values, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (ours, gradient), (whole, other) = results
    for name in ("logprobs", "entropy", "likeliest"):
        torch.testing.assert_close(getattr(ours, name), getattr(whole, name))
    for name, value in other.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-5)
