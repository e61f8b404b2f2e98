"""Advantages against their definition, and what must never move them."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.training.advantages import Method, group_advantages

REWARDS = st.lists(st.one_of(st.none(), st.floats(-10, 10), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mean", (2 / 3, 0.0, -1 / 3, -1 / 3)),
        ("mean_std", (1.154698, 0.0, -0.577349, -0.577349)),
        ("loo", (1.0, 0.0, -0.5, -0.5)),
    ],
)
def test_an_invalid_sibling_leaves_mean_and_spread(method: str, expected: tuple[float, ...]) -> None:
    group = group_advantages([1.0, None, 0.0, 0.0], method)
    assert group.advantages == pytest.approx(expected, abs=1e-6)
    assert (group.kept, group.why) == (True, "")


@given(REWARDS, st.sampled_from(list(Method)))
def test_valid_siblings_get_what_they_would_get_without_the_invalid_ones(
    rewards: list[float | None], method: Method
) -> None:
    group = group_advantages(rewards, method)
    valid = [r for r in rewards if r is not None]
    if group.why == "too_few_valid" or not valid:
        return
    alone = group_advantages(valid, method)
    assert [a for a, r in zip(group.advantages, rewards, strict=True) if r is not None] == list(alone.advantages)
    assert all(a == 0.0 for a, r in zip(group.advantages, rewards, strict=True) if r is None)


@given(REWARDS.map(lambda rewards: [r for r in rewards if r is not None]), st.sampled_from(list(Method)))
def test_advantages_equal_their_definition(rewards: list[float], method: Method) -> None:
    group = group_advantages(rewards, method)
    if not group.kept:
        assert not any(group.advantages)
        return
    for index, reward in enumerate(rewards):
        others = rewards[:index] + rewards[index + 1 :]
        away = reward - statistics.fmean(rewards)
        expected = {
            # GRPO (arXiv:2402.03300) without the division; with ddof 1 and 1e-6, as verl divides; RLOO (2402.14740)
            Method.MEAN: away,
            Method.MEAN_STD: away / (statistics.stdev(rewards) + 1e-6),
            Method.LOO: reward - statistics.fmean(others),
        }[method]
        assert group.advantages[index] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.floats(-1e6, 1e6), st.lists(st.floats(-1e-7, 1e-7), min_size=2, max_size=10), st.sampled_from(list(Method)))
def test_float_noise_on_a_constant_group_teaches_nothing(level: float, noise: list[float], method: Method) -> None:
    group = group_advantages([level + n for n in noise], method)
    assert (group.kept, group.why) == (False, "no_spread")
    assert set(group.advantages) == {0.0}


@given(REWARDS)
def test_no_divided_advantage_exceeds_the_bound_of_its_group_size(rewards: list[float | None]) -> None:
    valid = max(1, sum(r is not None for r in rewards))
    group = group_advantages(rewards, Method.MEAN_STD)
    assert all(abs(a) <= (valid - 1) / math.sqrt(valid) + 1e-6 for a in group.advantages)


@given(REWARDS, st.sampled_from(list(Method)), st.randoms(use_true_random=False))
def test_the_order_of_siblings_does_not_matter(rewards: list[float | None], method: Method, draw: object) -> None:
    places = list(range(len(rewards)))
    draw.shuffle(places)  # type: ignore[attr-defined]
    straight = group_advantages(rewards, method)
    shuffled = group_advantages([rewards[p] for p in places], method)
    assert shuffled.advantages == tuple(straight.advantages[p] for p in places)
    assert shuffled.why == straight.why


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ([], "too_few_valid"),
        ([1.0], "too_few_valid"),
        ([1.0, None, None, 0.0], ""),
        ([1.0, None, None, None, 0.0], "too_few_valid"),
        ([1.0, None, None, 0.0, 0.0], ""),
        ([1.0, 1.0, None, None], "no_spread"),
        ([1.0, 0.0, None, None, None, None, None, None], "too_few_valid"),
    ],
)
def test_a_group_needs_half_of_its_episodes_and_two_outcomes(rewards: list[float | None], why: str) -> None:
    group = group_advantages(rewards, "mean")
    assert (group.why, group.kept) == (why, why == "")
    assert len(group.advantages) == len(rewards)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_is_refused_and_never_read_as_zero(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        group_advantages([1.0, bad], "mean")
