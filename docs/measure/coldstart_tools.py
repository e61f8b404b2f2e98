"""Simulated tools that lie at a known rate: how often the interval that the card gives holds that rate. Prints JSON:
runs, those whose interval holds the true rate, and one run's figures for each scenario. No server: the model is
called in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.tool_brain import Speaker, ToolBrain
from scoring.judged_talks import LIMITS

from muarl_cli.conversation.episode import Episode
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.parties import scripted_agent, scripted_user
from muarl_cli.pipeline.play import job, play
from muarl_cli.pipeline.simulation import disagreement
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.simulated import SimulatedWorld

NAMES = ("retail", "library")
RATES = (0.05, 0.2)
RUNS, TALKS = 50, 40


async def talks(name: str, seed: int, lies: float) -> dict[str, Any]:
    """One run of one scenario: its row of disagreement."""
    domain = builtin(name)
    tasks = domain.tasks("train")[(seed * TALKS) % 2000 :][:TALKS]
    brain = ToolBrain([(domain, task) for task in tasks], seed, lies)
    agents, users = scripted_agent("careful", domain), scripted_user(domain)
    episodes: list[Episode] = []

    def around(work: Any, world: Any) -> Any:
        own = derive_seed(work.key.seed, "tools")
        memory = domain.memory(work.task, own)
        prompt = lambda tool, memory, schema: ""  # noqa: E731  this model needs none
        return SimulatedWorld(
            world.tools, memory, domain.schema, Speaker(brain), prompt, seed=own, temperature=0.0, real=world
        )

    for task in tasks:
        work = job(f"run{seed}", "synth-coldstart", 0, domain, task, 0, seed)
        episodes.append(await play(work, agents, users, LIMITS, around))
    return disagreement(episodes, {task.task_hash: (domain, task) for task in tasks})[f"builtin:{name}"]


def main() -> None:
    held = runs = 0
    shown: dict[str, Any] = {}
    for name in NAMES:
        for lies in RATES:
            rows = [asyncio.run(talks(name, seed, lies)) for seed in range(1, RUNS + 1)]
            good = sum(row["low"] <= lies <= row["high"] for row in rows)
            held, runs = held + good, runs + len(rows)
            shown[f"{name}_{lies}".replace(".", "")] = {"held": good, "runs": len(rows), **rows[0]}
    honest = [asyncio.run(talks(name, 1, 0.0)) for name in NAMES]
    print(
        json.dumps(
            {
                "runs": runs,
                "held": held,
                "share": held / runs,
                "cases": shown,
                "honest_events": sum(row["events"] for row in honest),
                "calls_a_run": shown["retail_02"]["calls"],
            }
        )
    )


if __name__ == "__main__":
    main()
