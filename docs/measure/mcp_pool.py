"""What the MCP pool guarantees, measured on the four real servers (`muarl mcp install` first): prints one JSON object.

    python docs/measure/mcp_pool.py [--episodes 40] [--kills 6]

Careful agents play `--episodes` test tasks of each scenario at once, while `--kills` server processes of each are
killed at moments drawn from a seed. Counted: episodes that ended well, faults by reason, end states that are neither
the gold one nor excused by a fault (`dirty`), and processes that replaced the dead ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.worlds.mcp.scenario import SHIPPED, McpScenario, mcp_scenario
from muarl_cli.worlds.scenario import Task, stage_of

LIMITS = Limits(max_turns=40, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


async def episode(scenario: McpScenario, task: Task) -> tuple[str, float | None]:
    """(end reason, reward where the episode is valid)."""
    stage, world = stage_of(scenario, 1), scenario.world(task)
    agent = ScriptedAgents(scenario.language, Manner.CAREFUL).open(stage, task)
    user = AgendaUsers(scenario.language).open(stage, task)
    try:
        talk = await converse(agent, user, world, greeting=scenario.greeting, limits=LIMITS)
        if not talk.end.reason.valid:
            return talk.end.reason.value, None
        return talk.end.reason.value, scenario.outcome(task, world, talk.events).reward
    finally:
        world.close()


async def killer(scenario: McpScenario, kills: int, rng: random.Random) -> int:
    """Kill processes that are serving an episode; how many were."""
    done = 0
    while done < kills:
        await asyncio.sleep(rng.uniform(0.05, 0.3))
        serving = list(scenario.pool._held)
        if serving and (number := pid_of(rng.choice(serving).folder)):
            os.kill(number, signal.SIGKILL)
            done += 1
    return done


def pid_of(folder: Path) -> int:
    """The process that stands in this directory; 0 for none."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == folder:
                return int(entry.name)
        except OSError:
            continue
    return 0


async def measure(name: str, episodes: int, kills: int) -> dict[str, Any]:
    scenario = mcp_scenario(name)
    tasks = list(scenario.tasks("test"))[:episodes]
    assert scenario.tools
    hunt = asyncio.create_task(killer(scenario, kills, random.Random(f"{name}/kills")))
    ended = await asyncio.gather(*(episode(scenario, task) for task in tasks))
    hunt.cancel()
    killed = scenario.pool.lost
    again = await asyncio.gather(*(episode(scenario, task) for task in tasks))
    return {
        "episodes": len(tasks),
        "killed": killed,
        "well": sum(reward == 1.0 for _, reward in ended),
        "faults": dict(Counter(reason for reason, reward in ended if reward is None)),
        "dirty": sum(reward not in (None, 1.0) for _, reward in ended),
        "well_after": sum(reward == 1.0 for _, reward in again),
        "started": scenario.pool.started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    rows = {name: asyncio.run(measure(name, options.episodes, options.kills)) for name in SHIPPED}
    total: Counter[str] = Counter()
    for row in rows.values():
        total.update({key: value for key, value in row.items() if isinstance(value, int)})
        total.update({f"fault_{reason}": count for reason, count in row["faults"].items()})
    total["fault_infra_fault"] += 0
    total["faults"] = sum(sum(row["faults"].values()) for row in rows.values())
    print(json.dumps({**total, "scenarios": rows}))


if __name__ == "__main__":
    main()
