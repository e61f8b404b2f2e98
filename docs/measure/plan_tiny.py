"""`muarl plan` against the clock: the forecast of a tiny step, then that step. Prints one JSON document.

    python docs/measure/plan_tiny.py [--sft runs/demo/sft] [--like runs/demo/rollouts] [--steps 3]

The forecast takes conversations from the rollouts of the same model on other tasks, and speeds from a probe; the run
that it is compared with is an ordinary `muarl rl-train --profile tiny`. Both happen one after the other on the same
cores. What is compared is the mean over the steps, since how many groups teach is drawn anew in each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MUARL = str(Path(sys.executable).with_name("muarl"))


def main() -> None:
    parser = argparse.ArgumentParser(description="A forecast and what it forecast.")
    parser.add_argument("--sft", default="runs/demo/sft")
    parser.add_argument("--like", default="runs/demo/rollouts")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    planned = _muarl("plan", "--profile", "tiny", "--model", options.sft, "--like", options.like)
    with tempfile.TemporaryDirectory(prefix="muarl-plan-") as out:
        _muarl("rl-train", "--profile", "tiny", "--model", options.sft, "--steps", str(options.steps), "--out", out)
        rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    rollout = sum(row["seconds_rollout"] for row in rows) / len(rows)
    update = sum(row["seconds_update"] for row in rows) / len(rows)
    print(
        json.dumps(
            {
                "planned": {"step": planned["step_seconds"], "rollout": planned["rollout_seconds"]},
                "measured": {"step": round(rollout + update, 2), "rollout": round(rollout, 2)},
                "steps": len(rows),
                "step_ratio": round(planned["step_seconds"] / (rollout + update), 3),
                "rollout_ratio": round(planned["rollout_seconds"] / rollout, 3),
                "idle_share": planned["idle_share"],
            }
        )
    )


def _muarl(*words: str) -> Any:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([MUARL, *words, "--json"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
