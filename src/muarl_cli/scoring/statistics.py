"""Statistics of repeated trials over tasks: pass^k, pass@k, intervals, paired differences, corrections.

The task is the unit that is resampled, never the episode: trials of one task resemble each other, and an interval that
ignores this is about a third too narrow. Invariant: every result depends on the values as a multiset and on the seed,
never on the order in which episodes finished.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muarl_cli.errors import ExitCode, MuarlError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
"""two-sided confidence of every interval that is printed"""
_CELLS = 1 << 21
"""resampled values held in memory at once (16 MB)"""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` tasks with its interval. `method` is "bootstrap", or "exact" where all tasks agree."""

    mean: float
    low: float
    high: float
    n: int
    method: str = "bootstrap"

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "method": self.method}


@dataclass(frozen=True)
class Difference:
    """A paired difference (second named minus first) over the `n` tasks that both have, with its interval.

    `p` is the two-sided p-value of a sign-flip test; `unpaired` counts the tasks that only one side has.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float
    unpaired: int = 0

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "p": self.p,
            "unpaired": self.unpaired,
        }


def pass_hat_k(trials: int, successes: int, k: int) -> float:
    """pass^k of one task: the chance that k trials drawn without replacement out of `trials` all succeed.

    Raises ValueError unless 1 <= k <= trials and 0 <= successes <= trials.
    """
    _check_counts(trials, successes, k)
    return math.comb(successes, k) / math.comb(trials, k)


def pass_at_k(trials: int, successes: int, k: int) -> float:
    """pass@k of one task: the chance that at least one of k trials drawn without replacement succeeds."""
    _check_counts(trials, successes, k)
    return 1.0 - math.comb(trials - successes, k) / math.comb(trials, k)


def _check_counts(trials: int, successes: int, k: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if not 1 <= k <= trials:
        raise ValueError(f"k = {k} needs 1 <= k <= {trials} trials")


def mean_pass_hat_k(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Mean of pass^k over tasks, each given as (trials, successes)."""
    return _mean([pass_hat_k(trials, successes, k) for trials, successes in counts])


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Mean of pass@k over tasks, each given as (trials, successes)."""
    return _mean([pass_at_k(trials, successes, k) for trials, successes in counts])


def bootstrap_mean(
    values: Sequence[float],
    *,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Percentile bootstrap of the mean of `values`, one value a task (its mean over trials, its pass^k, ...).

    Where all values agree, resampling cannot see that another task might differ ("0 of 3" is not "never"); the interval
    is then the exact binomial one for "no task differed in n", stretched to `bounds`. Raises ValueError for no values
    or one that is not finite.
    """
    ordered = _checked(values)
    mean = _mean(ordered)
    if ordered[0] == ordered[-1]:
        return _exact(mean, len(ordered), level, bounds)
    low, high = _quantiles(_resampled_means(ordered, resamples, seed), level)
    return Interval(mean, low, high, len(ordered))


def paired_difference(
    before: Mapping[str, float], after: Mapping[str, float], *, resamples: int, seed: int, level: float = LEVEL
) -> Difference:
    """`after` minus `before`, task by task, over the tasks both have; both map a task's key to its mean reward.

    Raises `MuarlError` where no task is shared.
    """
    shared = before.keys() & after.keys()
    if not shared:
        raise MuarlError(
            "nothing to compare: the two results share no task",
            next_step="evaluate both on the same task set",
            code=ExitCode.BAD_DATA,
        )
    gains = _checked([after[key] - before[key] for key in shared])
    interval = bootstrap_mean(gains, resamples=resamples, seed=seed, level=level, bounds=(-1.0, 1.0))
    p = sign_flip_p(gains, resamples=resamples, seed=seed)
    return Difference(
        interval.mean, interval.low, interval.high, interval.n, p, len(before) + len(after) - 2 * len(shared)
    )


def sign_flip_p(gains: Sequence[float], *, resamples: int, seed: int) -> float:
    """Two-sided p-value of "the mean paired gain is zero": signs of the gains are flipped at random.

    Never below 1 / (resamples + 1); 1.0 where no pair differs.
    """
    import numpy as np

    moved = np.asarray([gain for gain in _checked(gains) if gain != 0.0])
    if not len(moved):
        return 1.0
    rng = np.random.default_rng(seed)
    seen = abs(float(moved.sum())) - 1e-12
    extreme = 0
    for rows in _chunks(resamples, len(moved)):
        signs = rng.integers(0, 2, (rows, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= seen).sum())
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: adjusted p-values under the same names, never below the raw ones, at most 1."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def zero_events_upper_bound(n: int, confidence: float = LEVEL) -> float:
    """One-sided upper bound of a rate of which 0 events were seen in `n` (about 3 / n); 1.0 for n = 0."""
    return 1.0 if n <= 0 else -math.expm1(math.log1p(-confidence) / n)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile (the smallest value that at least `share` of the values do not exceed)."""
    ordered = _checked(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _exact(value: float, n: int, level: float, bounds: tuple[float, float]) -> Interval:
    low, high = min(bounds[0], value), max(bounds[1], value)
    doubt = zero_events_upper_bound(n, (1 + level) / 2)
    return Interval(value, value - doubt * (value - low), value + doubt * (high - value), n, "exact")


def _resampled_means(ordered: Sequence[float], resamples: int, seed: int) -> NDArray[np.float64]:
    import numpy as np

    if resamples < 1:
        raise ValueError("at least one resample is needed")
    # Drawing n tasks with replacement is drawing how often each distinct value comes up: a multinomial, and few values.
    distinct, counts = np.unique(np.asarray(ordered, dtype=np.float64), return_counts=True)
    rng = np.random.default_rng(seed)
    parts = [
        rng.multinomial(len(ordered), counts / len(ordered), size=rows) @ distinct / len(ordered)
        for rows in _chunks(resamples, len(distinct))
    ]
    return np.concatenate(parts)


def _chunks(resamples: int, width: int) -> Iterator[int]:
    rows = max(1, _CELLS // width)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _quantiles(means: NDArray[np.float64], level: float) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(values: Sequence[float]) -> list[float]:
    """The values as a sorted list: what makes every result independent of their order."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(float(value) for value in values)
    if not all(map(math.isfinite, ordered)):
        raise ValueError("values must be finite")
    return ordered


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no values")
    return math.fsum(values) / len(values)
