"""`muarl plan` against the clock where the policy is on a server, with staleness 0 and 1. Prints one JSON document.

    python docs/measure/plan_async.py [--steps 10] [--latency 0.05]

The runs are those of `benchmarks/async_rl.py`: a tiny model behind vLLM's routes (a thread of this process), and a user
on another server who takes `latency` seconds to answer. A few conversations are held first (`muarl rollout`, with other
draws). Then come the steps with staleness 0, both forecasts (`muarl plan --like`, which probes the server and this
machine), and the steps with staleness 1. A forecast is compared with the median of the steps, without the first two and
the last one, which have less to overlap with. Shares under 0.1 are compared by their difference.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of the server here, as of the stages: a core each

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from async_rl import options_of, place_with, policy_of, train, user_options  # noqa: E402
from fakes.stages import PROFILE, Place, refusals  # noqa: E402

BOUNDS = (0, 1)
BUSY = 0.1
"""share of idle time from which on a ratio says something"""
COUNTED = slice(2, -1)
"""steps that are compared"""
FIGURES = {
    "rollout_seconds": lambda row: row["seconds_rollout"],
    "update_seconds": lambda row: row["seconds_update"],
    "step_seconds": lambda row: row["seconds_rollout"] + row["seconds_update"],
    "trainer_idle_share": lambda row: row.get("trainer_idle_share"),
    "rollout_idle_share": lambda row: row.get("rollout_idle_share"),
}


def forecasts(place: Place, user: str, latency: float) -> list[dict[str, Any]]:
    """One for each bound; the server has the weights that training begins with."""
    with policy_of(place) as url:
        words = ["--profile", str(PROFILE), "--model", "runs/sft", "--like", "runs/talk", "--json"]
        asked = ["--user-latency", str(latency), f"engines={url}"]
        return [json.loads(place.muarl("plan", *words, *asked, *options_of(bound, user)).stdout) for bound in BOUNDS]


def talk(place: Place, user: str) -> None:
    """Conversations to go by."""
    with policy_of(place) as url:
        words = [*place.command("rollout")[1:-2], "--out", "runs/talk", "--engine", url]
        place.muarl(
            *words,
            "--tasks",
            ",".join(refusals()),
            "max_tasks=0",
            "group=4",
            "seed=7",
            "in_flight=32",
            *user_options(user),
        )


def compared(planned: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Forecast, measurement and how far they are apart, as a share of the measurement."""
    found: dict[str, Any] = {"planned": {}, "measured": {}, "away": {}}
    for name, read in FIGURES.items():
        seen = [read(row) for row in rows[COUNTED]]
        if None in seen:  # the stage notes the shares where there is staleness
            continue
        measured, plan = statistics.median(seen), planned[name]
        small = "share" in name and max(measured, plan) < BUSY
        found["planned"][name], found["measured"][name] = round(plan, 3), round(measured, 3)
        found["away"][name] = round(abs(plan - measured) / (1.0 if small else measured), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.05)
    options = parser.parse_args()
    with place_with(options.latency) as (place, user):
        talk(place, user)
        apart = train(place, 0, options.steps, user)
        planned = forecasts(place, user, options.latency)
        ahead = train(place, 1, options.steps, user)
    rows = (apart, ahead)
    table = {f"staleness_{bound}": compared(planned[bound], rows[bound]) for bound in BOUNDS}
    worst = max((away, f"{name} of {bound}") for bound, row in table.items() for name, away in row["away"].items())
    print(json.dumps({**table, "worst": worst[0], "worst_figure": worst[1].replace("_", " ")}))


if __name__ == "__main__":
    main()
