"""pass^k against enumeration, intervals against their coverage, corrections against worked examples."""

from itertools import combinations
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.errors import MuarlError
from muarl_cli.scoring.statistics import (
    bootstrap_mean,
    holm,
    mean_pass_at_k,
    mean_pass_hat_k,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    percentile,
    sign_flip_p,
    zero_events_upper_bound,
)

VALUES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=40)


@pytest.mark.parametrize("trials", range(1, 7))
def test_pass_rates_equal_enumeration_of_all_draws(trials: int) -> None:
    for successes in range(trials + 1):
        outcomes = [True] * successes + [False] * (trials - successes)
        for k in range(1, trials + 1):
            draws = list(combinations(outcomes, k))
            assert isclose(pass_hat_k(trials, successes, k), sum(map(all, draws)) / len(draws))
            assert isclose(pass_at_k(trials, successes, k), sum(map(any, draws)) / len(draws), abs_tol=1e-12)


def test_mean_pass_rates_average_over_tasks_not_trials() -> None:
    counts = [(4, 4), (4, 0), (2, 1)]
    assert mean_pass_hat_k(counts, 2) == pytest.approx((1 + 0 + 0) / 3)
    assert mean_pass_at_k(counts, 2) == pytest.approx((1 + 0 + 1) / 3)
    assert mean_pass_hat_k(counts, 1) == mean_pass_at_k(counts, 1) == pytest.approx(0.5)


@pytest.mark.parametrize(("trials", "successes", "k"), [(3, 4, 1), (3, -1, 1), (3, 2, 0), (3, 2, 4)])
def test_impossible_counts_are_refused(trials: int, successes: int, k: int) -> None:
    with pytest.raises(ValueError):
        pass_hat_k(trials, successes, k)
    with pytest.raises(ValueError):
        pass_at_k(trials, successes, k)


@pytest.mark.parametrize("tasks", [50, 165])
def test_interval_covers_the_truth_in_93_to_97_percent(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    simulations, covered = 1200, 0
    for seed in range(simulations):
        trials = rng.binomial(4, rng.beta(1.0, 1.0, tasks)) / 4
        interval = bootstrap_mean(trials.tolist(), resamples=1000, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.93 <= covered / simulations <= 0.97


def test_resampled_means_have_the_spread_of_a_plain_bootstrap() -> None:
    values = [0.0] * 60 + [0.25] * 10 + [0.5] * 5 + [1.0] * 25
    rng = np.random.default_rng(7)
    plain = np.asarray(values)[rng.integers(0, len(values), (20_000, len(values)))].mean(axis=1)
    low, high = np.quantile(plain, [0.025, 0.975])
    interval = bootstrap_mean(values, resamples=20_000, seed=1)
    assert interval.low == pytest.approx(low, abs=0.006)
    assert interval.high == pytest.approx(high, abs=0.006)


@given(VALUES, st.randoms(use_true_random=False))
def test_order_of_tasks_never_changes_an_interval(values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(values)
    random.shuffle(shuffled)
    assert bootstrap_mean(values, resamples=200, seed=3) == bootstrap_mean(shuffled, resamples=200, seed=3)


@given(VALUES)
def test_interval_holds_the_mean_and_stays_in_bounds(values: list[float]) -> None:
    interval = bootstrap_mean(values, resamples=500, seed=0)
    assert -1e-12 <= interval.low <= interval.mean + 1e-12
    assert interval.mean - 1e-12 <= interval.high <= 1 + 1e-12
    assert interval.n == len(values)


def test_another_seed_gives_another_sample_and_the_same_seed_the_same() -> None:
    values = [i / 36 for i in range(37)]
    assert bootstrap_mean(values, resamples=999, seed=1) == bootstrap_mean(values, resamples=999, seed=1)
    assert bootstrap_mean(values, resamples=999, seed=1) != bootstrap_mean(values, resamples=999, seed=2)


def test_unanimous_tasks_do_not_pretend_certainty() -> None:
    all_passed = bootstrap_mean([1.0] * 10, resamples=100, seed=0)
    none_passed = bootstrap_mean([0.0] * 10, resamples=100, seed=0)
    # Clopper-Pearson for 10 of 10 at 95 %: [0.6915, 1]
    assert (all_passed.mean, all_passed.high, all_passed.method) == (1.0, 1.0, "exact")
    assert all_passed.low == pytest.approx(0.6915, abs=1e-4)
    assert (none_passed.mean, none_passed.low) == (0.0, 0.0)
    assert none_passed.high == pytest.approx(0.3085, abs=1e-4)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_values_that_have_no_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        bootstrap_mean(values, resamples=10, seed=0)


def test_paired_difference_sees_what_unpaired_intervals_cannot() -> None:
    before = {f"t{i}": (i % 5) / 4 for i in range(100)}
    after = {key: min(1.0, value + 0.25 * (i % 2)) for i, (key, value) in enumerate(before.items())}
    difference = paired_difference(before, after, resamples=4000, seed=0)
    left = bootstrap_mean(list(before.values()), resamples=4000, seed=0)
    right = bootstrap_mean(list(after.values()), resamples=4000, seed=0)
    assert left.high > right.low
    assert difference.above_zero and difference.p < 0.01
    assert difference.mean == pytest.approx(right.mean - left.mean)


def test_paired_difference_uses_shared_tasks_and_counts_the_others() -> None:
    difference = paired_difference({"a": 0.0, "b": 0.5, "x": 1.0}, {"a": 1.0, "b": 0.5}, resamples=100, seed=0)
    assert (difference.n, difference.unpaired, difference.mean) == (2, 1, 0.5)
    with pytest.raises(MuarlError, match="share no task"):
        paired_difference({"a": 1.0}, {"b": 1.0}, resamples=100, seed=0)


def test_equal_arms_differ_by_nothing() -> None:
    scores = {str(i): float(i % 2) for i in range(40)}
    difference = paired_difference(scores, scores, resamples=500, seed=0)
    assert (difference.mean, difference.p, difference.above_zero) == (0.0, 1.0, False)
    assert difference.low < 0 < difference.high


def test_sign_flip_matches_the_exact_test() -> None:
    # six gains of equal size, all positive: 2 of 64 sign patterns are as extreme
    assert sign_flip_p([1.0] * 6, resamples=20_000, seed=0) == pytest.approx(2 / 64, abs=0.005)
    assert sign_flip_p([1.0] * 6 + [0.0] * 30, resamples=20_000, seed=0) == pytest.approx(2 / 64, abs=0.005)


def test_holm_matches_the_worked_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= 1.0
        assert (
            adjusted[name] <= 1.0 if len(p_values) * p > 1 else adjusted[name] <= len(p_values) * max(p_values.values())
        )


def test_zero_events_is_about_three_over_n() -> None:
    assert zero_events_upper_bound(300) == pytest.approx(3 / 300, rel=0.01)
    assert zero_events_upper_bound(1) == pytest.approx(0.95)
    assert zero_events_upper_bound(0) == 1.0


def test_percentile_is_a_value_that_occurred() -> None:
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7], 0.95) == 7
    assert percentile([3, 1, 2], 0.0) == 1
