"""RL steps straight, and the same with kills at random moments: prints one JSON document.

    python docs/measure/rl_kills.py [--steps 40] [--kills 10]

The smallest profile, a checkpoint each step; what is compared is the hash of the last checkpoint (weights, optimiser,
position) and of all episodes. Kills are SIGKILL, at moments drawn over the time that the straight run's work took,
divided by how often the run is to be cut, so that each start gets somewhere.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.stages import Place, has_begun, hashes  # noqa: E402

STAGE = "rl-train"


class Longer(Place):
    """A place whose RL takes more steps than the smallest profile asks for."""

    steps = 40

    def command(self, stage: str) -> list[str]:
        words = super().command(stage)
        return [*words, "--steps", str(self.steps)] if stage == STAGE else words


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a training run and see whether it ends the same.")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    Longer.steps = options.steps
    draw = random.Random("kill rl-train")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        straight, cut = Longer(Path(first)), Longer(Path(second))
        for stage in ("synth-coldstart", "sft"):
            straight.run(stage)
        span = straight.timed(STAGE)
        cut.take_inputs(STAGE, straight)
        kills, starts = 0, []
        for _ in range(4 * options.kills):
            if kills == options.kills:
                break
            kills += cut.kill_when(STAGE, has_begun, draw.uniform(0.0, 1.6 * span / options.kills))
            starts.append(_steps(cut.folder(STAGE)))
            if (cut.folder(STAGE) / "summary.json").exists():
                raise SystemExit(f"error: the run was over after {kills} kills\nnext: more --steps, or fewer --kills")
        cut.run(STAGE)
        ours, theirs = hashes(straight.folder(STAGE)), hashes(cut.folder(STAGE))
    print(
        json.dumps(
            {
                "steps": options.steps,
                "kills": kills,
                "steps_at_kills": starts,
                "same_weights": ours["checkpoint"] == theirs["checkpoint"],
                "same_episodes": ours["episodes"] == theirs["episodes"],
                "seconds_straight": round(span, 1),
            }
        )
    )


def _steps(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


if __name__ == "__main__":
    main()
