"""Advantages against their definition, and what must never move them."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.training.advantages import GroupAdvantage, Method, deviation, turn_advantages
from muarl_cli.training.advantages import group_advantages as advantages_of

SPREAD = 0.75
"""of the batch, where a method divides by that"""


def group_advantages(rewards: list[float | None], method: Method | str) -> GroupAdvantage:
    return advantages_of(rewards, method, SPREAD)


REWARDS = st.lists(st.one_of(st.none(), st.floats(-10, 10), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mean", (2 / 3, 0.0, -1 / 3, -1 / 3)),
        ("mean_std", (1.154698, 0.0, -0.577349, -0.577349)),
        ("batch", (2 / 3 / SPREAD, 0.0, -1 / 3 / SPREAD, -1 / 3 / SPREAD)),
        ("loo", (1.0, 0.0, -0.5, -0.5)),
    ],
)
def test_an_invalid_sibling_leaves_mean_and_spread(method: str, expected: tuple[float, ...]) -> None:
    group = group_advantages([1.0, None, 0.0, 0.0], method)
    assert group.advantages == pytest.approx(expected, abs=2e-6)
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
            # the same over the batch's (TRL 1.16.0, scale_rewards="batch")
            Method.BATCH: away / (SPREAD + 1e-6),
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


def test_the_batchs_spread_must_be_given_to_the_method_that_divides_by_it() -> None:
    with pytest.raises(ValueError, match="batch's standard deviation"):
        advantages_of([1.0, 0.0], "batch")
    assert deviation([1.0, 0.0, 0.0, 1.0]) == pytest.approx(statistics.stdev([1, 0, 0, 1]))
    assert deviation([1.0]) == 0.0


TURNS = st.lists(
    st.one_of(st.none(), st.lists(st.floats(-5, 5), min_size=1, max_size=5)), min_size=2, max_size=6
).filter(lambda group: sum(each is not None for each in group) >= 2)


@given(TURNS, st.sampled_from(["mean", "loo"]))
def test_rewards_that_come_at_the_end_give_every_turn_the_episodes_advantage(
    group: list[list[float] | None], method: str
) -> None:
    late = [None if each is None else [*[0.0] * (len(each) - 1), each[-1]] for each in group]
    found = turn_advantages(late, method)
    whole = [None if each is None else each[-1] for each in group]
    valid = [r for r in whole if r is not None]
    for turns, reward in zip(found, whole, strict=True):
        if reward is None:
            assert turns == ()
            continue
        expected = reward - statistics.fmean(valid)
        expected *= len(valid) / (len(valid) - 1) if method == "loo" else 1.0
        assert turns == pytest.approx([expected] * len(turns), abs=1e-9)


@given(TURNS, st.integers(0, 5), st.floats(-3, 3))
def test_the_expectation_of_a_turn_does_not_depend_on_what_the_turn_did(
    group: list[list[float] | None], which: int, change: float
) -> None:
    """Leave-one-out: an episode's own reward moves its own advantage by as much and no sibling's expectation of it."""
    index = [i for i, each in enumerate(group) if each is not None][which % sum(e is not None for e in group)]
    before = turn_advantages(group, "loo")[index]
    changed = [list(each) if each is not None else None for each in group]
    mine = changed[index]
    assert mine is not None
    mine[-1] += change
    after = turn_advantages(changed, "loo")[index]
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([change] * len(mine), abs=1e-9)


@pytest.mark.parametrize(
    ("group", "method"), [([[1.0], [0.0]], "mean_std"), ([[1.0], []], "loo"), ([[math.nan], [0.0]], "mean")]
)
def test_credit_by_turn_refuses_what_would_bias_it(group: list[list[float]], method: str) -> None:
    with pytest.raises(ValueError, match=r"turn"):
        turn_advantages(group, method)
