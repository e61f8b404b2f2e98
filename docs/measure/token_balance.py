"""What became of every sampled token in a small run, with a thinking chat template or without: one JSON document.

    python docs/measure/token_balance.py [--steps 6] [--chat thinking]

Cold start, fine-tuning and RL at the smallest size, as real processes, in one chat format. The tokens that were
sampled are counted from the log (invalid episodes and dropped groups included), the trained ones by the trainer, and
what the rows hold is counted here. `unaccounted` is sampled - trained - itemised.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.stages import Place, summary  # noqa: E402

from muarl_cli.conversation.protocols import Owner  # noqa: E402
from muarl_cli.records.log import iter_episodes  # noqa: E402


def trained(folder: Path, chat: str, steps: int) -> dict[str, Any]:
    """The books of one pipeline in one chat format."""
    place = Place(folder)
    place.run("synth-coldstart")
    place.muarl(*place.command("sft")[1:], f"chat={chat}")
    place.muarl(*place.command("rl-train")[1:], "--steps", str(steps), f"chat={chat}")
    said, tuned = summary(place.folder("rl-train"))["tokens"], summary(place.folder("sft"))["tokens"]
    episodes = list(iter_episodes(place.folder("rl-train"), rows=True))
    owners = [[owner for row in e.rows for owner in row.owners] for e in episodes]
    logged = sum(e.usage["agent_tokens"] for e in episodes)
    return {
        "rl": said,
        "sft": tuned,
        "unaccounted": said["sampled"] - said["trained"] - sum(said["left"].values()),
        "sft_unaccounted": tuned["agent"] - tuned["trained_an_epoch"] - sum(tuned["left"].values()),
        "logged_as_sampled": logged,
        "agents_in_rows": sum(each.count(Owner.AGENT) for each in owners),
        "said_again_as_context": sum(each.count(Owner.EARLIER) for each in owners),
        "episodes": len(episodes),
        "rows": sum(len(e.rows) for e in episodes),
        "most_rows": max(len(e.rows) for e in episodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow every sampled token to the loss.")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--chat", choices=("nonthinking", "thinking"), default="nonthinking")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(trained(Path(folder), options.chat, options.steps), indent=2))


if __name__ == "__main__":
    main()
