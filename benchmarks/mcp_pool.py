"""Episodes a second on MCP scenarios, with the pool and with a new server for every episode: prints one JSON object.

    python benchmarks/mcp_pool.py [--episodes 8] [--scenario shop_database]

The same episodes of the oracle agent are played twice in this process: on the pool, and on a pool that replaces its
processes after every episode (what one has without one). Needs `muarl mcp install` once. Start-up of the first
processes is not counted for either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.worlds.mcp import pool
from muarl_cli.worlds.mcp.scenario import SHIPPED, McpScenario, mcp_scenario
from muarl_cli.worlds.scenario import stage_of

LIMITS = Limits(max_turns=40, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)


async def play_all(scenario: McpScenario, episodes: int, in_flight: int) -> float:
    """Seconds for the first tasks of the test split; every one must be solved."""
    room = asyncio.Semaphore(in_flight)

    async def one(number: int) -> None:
        async with room:
            task = scenario.tasks("test")[number]
            stage, world = stage_of(scenario, 0), scenario.world(task)
            agent = ScriptedAgents(scenario.language, Manner.ORACLE).open(stage, task)
            user = AgendaUsers(scenario.language).open(stage, task)
            talk = await converse(agent, user, world, greeting=scenario.greeting, limits=LIMITS)
            assert scenario.outcome(task, world, talk.events).reward == 1.0
            world.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(episodes)))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--scenario", choices=SHIPPED, action="append")
    options = parser.parse_args()
    result = {}
    for name in options.scenario or SHIPPED:
        scenario = mcp_scenario(name)
        asyncio.run(play_all(scenario, options.episodes, 8))  # gold states are then known, and processes warm
        pooled = asyncio.run(play_all(scenario, options.episodes, 8))
        kept, pool.EPISODES = pool.EPISODES, 1
        alone = asyncio.run(play_all(scenario, options.episodes, 8))
        pool.EPISODES = kept
        result[name] = {
            "pooled_per_second": round(options.episodes / pooled, 1),
            "alone_per_second": round(options.episodes / alone, 2),
            "times": round(alone / pooled, 1),
        }
    result["least_times"] = min(row["times"] for row in result.values())  # type: ignore[assignment]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
