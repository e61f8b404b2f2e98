"""Wall time of `muarl rl-train` steps with staleness 0 against 1, in one run: prints one JSON document.

    python benchmarks/async_rl.py [--steps 8] [--latency 0.05]

The same tiny model, tasks and numbers of episodes, each time with the policy on a server of its own (here: a thread of
this process with vLLM's routes) and the user on another, which takes `latency` seconds to answer. Timed is what the
stage itself notes of its steps: waiting for conversations, update and delivery of weights. With staleness 1 the first
step still has nothing to overlap with; it counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of the server here, as of the stages: a core each

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.stages import Place, refusals  # noqa: E402
from fakes.vllm_like_server import ROUTES, VllmLikeServer  # noqa: E402
from served_users import server as users  # noqa: E402

from muarl_cli.records.checkpoint import resolve_model_path  # noqa: E402
from muarl_cli.training.tiny_model import load_model  # noqa: E402

PROMPTS, GROUP = 2, 8


def options_of(staleness: int, user: str) -> list[str]:
    """Settings of the training."""
    own = [f"staleness={staleness}", "importance_cap=2", "refill_rounds=0", f"in_flight={PROMPTS * GROUP}"]
    own += [f"group={GROUP}", f"prompts_per_step={PROMPTS}", "save_every=0"]
    return [*own, *user_options(user)]


def user_options(url: str) -> list[str]:
    """Settings of the user at an address."""
    return ["user.backend=llm", "user.model=m", f"user.base_url={url}"]


@contextmanager
def policy_of(place: Place) -> Iterator[str]:
    """The address of a server with the weights that training begins with."""
    start = resolve_model_path(place.folder("sft"), lambda line: None)
    routes = tuple(route for route in ROUTES if "lora" not in route)  # as `muarl serve` without --max-lora-rank
    with VllmLikeServer(load_model(start, "fp32"), routes=routes) as server:
        yield server.url


@contextmanager
def place_with(latency: float) -> Iterator[tuple[Place, str]]:
    """A folder with a model that can be trained, and the address of the user."""
    with tempfile.TemporaryDirectory() as folder, users({}, latency) as user:
        place = Place(Path(folder))
        for stage in ("synth-coldstart", "sft"):
            place.run(stage)
        yield place, user


def train(place: Place, staleness: int, steps: int, user: str) -> list[dict[str, Any]]:
    """The metrics of a run."""
    with policy_of(place) as url:
        words = [*place.command("rl-train")[1:-2], "--out", f"runs/stale-{staleness}", "--engine", url]
        own = [*options_of(staleness, user), f"steps={steps}"]
        place.muarl(*words, "--tasks", ",".join(refusals()), *own)
    lines = (place.root / "runs" / f"stale-{staleness}" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--latency", type=float, default=0.05)
    options = parser.parse_args()
    with place_with(options.latency) as (place, user):
        rows = {bound: train(place, bound, options.steps, user) for bound in (0, 1)}
    named = {"waiting": rows[0], "ahead": rows[1]}
    seconds = {name: sum(r["seconds_rollout"] + r["seconds_update"] for r in found) for name, found in named.items()}
    print(
        json.dumps(
            {
                "steps": options.steps,
                "latency": options.latency,
                "episodes": {name: sum(r["episodes"] for r in found) for name, found in named.items()},
                "trained_tokens": {name: sum(r["agent_tokens"] for r in found) for name, found in named.items()},
                "seconds": {name: round(value, 2) for name, value in seconds.items()},
                "speed_up": round(seconds["waiting"] / seconds["ahead"], 3),
                "trainer_idle": round(sum(r["trainer_idle_share"] for r in rows[1]) / len(rows[1]), 3),
                "rollout_idle": round(sum(r["rollout_idle_share"] for r in rows[1]) / len(rows[1]), 3),
                "staleness_max": max(r["staleness_max"] for r in rows[1]),
            }
        )
    )


if __name__ == "__main__":
    main()
