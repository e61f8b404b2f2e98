"""`muarl plan` against the clock where the policy is on a server, with staleness 0 and 1. Prints one JSON document.

    python docs/measure/plan_async.py [--steps 10] [--latency 0.05]

The runs are those of `benchmarks/async_rl.py`: a tiny model behind vLLM's routes (a thread of this process), and a user
on another server who takes `latency` seconds to answer. A few conversations are held first (`muarl rollout`, with other
draws). The server and this machine are probed (`muarl plan --like`), steps are taken with staleness 0 and with 1, and
both are probed once more: the mean of the forecasts is compared with the median of the steps, without the first two and
the last one, which have less to overlap with. What is left of a step when the trainer has done its part is small where
steps overlap, and what idles is a share of time: these are compared by their difference, as shares of the step
(`share_away`), all else as a share of the measurement (`away`).
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


def compared(planned: list[dict[str, Any]], rows: list[dict[str, Any]], bound: int) -> dict[str, Any]:
    """Forecast, measurement and how far they are apart."""
    found: dict[str, Any] = {"planned": {}, "measured": {}, "away": {}, "share_away": {}}
    for name, read in FIGURES.items():
        seen = [read(row) for row in rows[COUNTED]]
        if None in seen:  # the stage notes the shares where there is staleness
            continue
        found["measured"][name] = round(statistics.median(seen), 3)
        found["planned"][name] = round(statistics.mean(each[name] for each in planned), 3)
    step = found["measured"]["step_seconds"]
    for name, measured in found["measured"].items():
        off = abs(found["planned"][name] - measured)
        if "share" in name:
            found["share_away"][name] = round(off, 3)
        elif bound and name == "rollout_seconds":
            found["share_away"][name] = round(off / step, 3)
        else:
            found["away"][name] = round(off / measured, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.05)
    options = parser.parse_args()
    with place_with(options.latency) as (place, user):
        talk(place, user)
        before = forecasts(place, user, options.latency)
        rows = [train(place, bound, options.steps, user) for bound in BOUNDS]
        after = forecasts(place, user, options.latency)
    table = {f"staleness_{bound}": compared([before[bound], after[bound]], rows[bound], bound) for bound in BOUNDS}
    worst = {
        kind: max(away for row in table.values() for away in row[kind].values()) for kind in ("away", "share_away")
    }
    print(json.dumps({**table, "worst": worst["away"], "worst_share": worst["share_away"]}))


if __name__ == "__main__":
    main()
