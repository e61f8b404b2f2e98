"""RL steps straight, and the same with kills at random moments: prints one JSON document.

    python docs/measure/rl_kills.py [--steps 40] [--kills 10]

The smallest profile, a checkpoint each step; what is compared is the hash of the last checkpoint (weights, optimiser,
position) and of all episodes. Kills are SIGKILL. Each has a step of its own, drawn from all of them, and comes at a
random moment of the time that a step takes after that one's checkpoint: while conversations are held, in the update,
while a checkpoint or the log is written, or while a start still reads what the kill before it left.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from functools import partial
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
        kills, reached = 0, []
        for step in sorted(draw.sample(range(options.steps - 1), options.kills)):
            kills += cut.kill_when(STAGE, partial(_is_past, step), draw.uniform(0.0, 1.5 * span / options.steps))
            reached.append(_step(cut.folder(STAGE)))
        cut.run(STAGE)
        ours, theirs = hashes(straight.folder(STAGE)), hashes(cut.folder(STAGE))
    print(
        json.dumps(
            {
                "steps": options.steps,
                "kills": kills,
                "steps_at_kills": reached,
                "same_weights": ours["checkpoint"] == theirs["checkpoint"],
                "same_episodes": ours["episodes"] == theirs["episodes"],
                "seconds_straight": round(span, 1),
            }
        )
    )


def _is_past(step: int, folder: Path, pid: int) -> bool:
    """Whether this process is at work and the checkpoint of `step` is there."""
    return has_begun(folder, pid) and _step(folder) >= step


def _step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 before the first."""
    newest = folder / "checkpoints" / "LATEST"
    return int(newest.read_text().strip().rpartition("-")[2]) if newest.exists() else 0


if __name__ == "__main__":
    main()
