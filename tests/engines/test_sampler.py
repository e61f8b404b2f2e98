"""Drawing tokens: counted randomness, the right distribution, the right log-probability."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.engines.sampler import draw, uniforms


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), st.integers(1, 9))
def test_a_rows_numbers_depend_on_its_seed_and_place_alone(seeds: list[int], count: int) -> None:
    together = uniforms(seeds, count)
    assert bool(((together >= 0) & (together < 1)).all())
    for index, seed in enumerate(seeds):
        assert torch.equal(together[index], uniforms([seed], count + 3)[0, :count])


def test_numbers_of_neighbouring_seeds_look_independent_and_uniform() -> None:
    numbers = uniforms(range(400), 400).numpy()
    assert abs(numbers.mean() - 0.5) < 0.005
    counts = numpy.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 8000) ** 2 / 8000).sum() < 45  # chi-square with 19 degrees: 0.1 % lies above 43.8
    assert abs(numpy.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.01
    assert abs(numpy.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("vocab", [7, 5000])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_draws_follow_the_distribution(vocab: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((vocab,), -30.0)
    logits[-7:] = torch.randn(7, generator=generator)
    rows = 20_000
    ids, logprobs = draw(
        logits.expand(rows, vocab), torch.full((rows,), temperature), torch.ones(rows), uniforms(range(rows), 1)[:, 0]
    )
    expected = torch.softmax(logits / temperature, -1)
    found = torch.bincount(ids, minlength=vocab) / rows
    assert torch.allclose(found, expected, atol=0.012)
    assert torch.allclose(logprobs, expected.log()[ids], atol=1e-5)


def test_top_p_keeps_the_smallest_set_that_holds_the_mass_and_renormalises() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = 2000
    ids, logprobs = draw(
        probabilities.log().expand(rows, 4), torch.ones(rows), torch.full((rows,), 0.7), uniforms(range(rows), 1)[:, 0]
    )
    assert set(ids.tolist()) == {0, 1}
    assert torch.allclose(logprobs.exp(), torch.tensor([0.625, 0.375])[ids], atol=1e-5)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 5))
def test_an_impossible_token_is_never_drawn(chance: float, possible: int) -> None:
    logits = torch.full((1, 6), float("-inf"))
    logits[0, possible] = 1.0
    ids, logprobs = draw(logits, torch.ones(1), torch.ones(1), torch.tensor([chance], dtype=torch.float64))
    assert ids.tolist() == [possible] and logprobs.tolist() == [0.0]


def test_the_largest_number_below_one_still_names_a_token() -> None:
    logits = torch.randn(50, 333, generator=torch.Generator().manual_seed(1))
    ids, logprobs = draw(logits, torch.ones(50), torch.ones(50), torch.full((50,), 1 - 2.0**-53, dtype=torch.float64))
    assert int(ids.max()) < 333 and bool(logprobs.isfinite().all())


def test_temperature_zero_takes_the_likeliest_and_reports_the_models_own_log_probability() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    ids, logprobs = draw(logits, torch.zeros(1), torch.tensor([0.5]), torch.tensor([0.99], dtype=torch.float64))
    assert ids.tolist() == [1]
    assert torch.allclose(logprobs, torch.log_softmax(logits, -1)[:, 1])
