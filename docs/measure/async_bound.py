"""Asynchronous training on a virtual clock with random latencies, bounds and kills: prints one JSON document.

    python docs/measure/async_bound.py [--runs 600]

Every run is held twice: straight, and killed at a random moment and resumed from its newest checkpoint over what its
log holds. Counted: tokens older than the bound, episodes trained in two steps, acknowledged episodes that were held
again, steps trained before the kill that a resumed run would train on other episodes, runs whose order of tasks
depends on how many conversations go on at once.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.async_world import World, run  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Look for a latency that breaks the bound.")
    parser.add_argument("--runs", type=int, default=600)
    runs = parser.parse_args().runs
    draw = random.Random("latencies")
    found = dict.fromkeys(
        ("too_old", "at_the_bound", "trained_twice", "held_again", "trained_otherwise", "reordered"), 0
    )
    episodes = killed = above = 0
    for seed in range(runs):
        bound, steps, width = draw.randint(0, 4), draw.randint(2, 7), draw.randint(1, 12)
        straight = run(World(seed, bound, steps, in_flight=width))
        wide = run(World(seed, bound, steps, in_flight=100))
        found["reordered"] += wide.trained != straight.trained
        cut = run(World(seed, bound, steps, in_flight=width, stop_at=draw.uniform(0.0, 60.0), faults=0.0))
        before, first = dict(cut.kept), list(cut.trained)
        checkpoint = len(first) // 2 * 2
        again = run(World(seed, bound, steps, in_flight=width, kept=dict(before), faults=0.0), checkpoint)
        killed += len(first) < steps
        found["held_again"] += sum(again.kept[name] is not episode for name, episode in before.items())
        repeated = again.trained[: len(first) - checkpoint]
        found["trained_otherwise"] += sum(a != b for a, b in zip(repeated, first[checkpoint:], strict=True))
        for trained in (straight.trained, [*first[:checkpoint], *again.trained]):
            names = [name for step in trained for name in step]
            found["trained_twice"] += len(names) - len(set(names))
            episodes += len(names)
        lags = straight.lags + again.lags
        found["too_old"] += sum(lag > bound for lag in lags)
        if bound:
            above += 1
            found["at_the_bound"] += max(straight.lags) == bound
    print(json.dumps({"runs": runs, "killed": killed, "episodes": episodes, "runs_above_0": above, **found}))


if __name__ == "__main__":
    main()
