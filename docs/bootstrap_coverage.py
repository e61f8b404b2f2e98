"""How often the interval that we print covers the truth: evaluations are simulated from known task difficulties.

Each simulated task has its own success rate (Beta(1, 1), so the true mean is 0.5) and four trials. Prints JSON.
"""

from __future__ import annotations

import json

import numpy as np

from muarl_cli.scoring.statistics import bootstrap_mean


def coverage(tasks: int, simulations: int, resamples: int) -> float:
    """Share of simulated evaluations whose interval holds the true mean."""
    rng = np.random.default_rng(tasks)
    covered = 0
    for seed in range(simulations):
        rates = rng.beta(1.0, 1.0, tasks)
        interval = bootstrap_mean((rng.binomial(4, rates) / 4).tolist(), resamples=resamples, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    return covered / simulations


if __name__ == "__main__":
    simulations, resamples = 4000, 10_000
    shares = {f"tasks_{n}": coverage(n, simulations, resamples) for n in (50, 165)}
    print(json.dumps({"coverage": shares, "simulations": simulations, "resamples": resamples}))
