"""`muarl synth-coldstart` on the four MCP scenarios, offline: prints one JSON object.

    python docs/measure/mcp_coldstart.py [--count 400]

`muarl mcp install` comes first. Every accepted trajectory is then played again from its log: its calls, in order, on a
fresh directory of the real server, and the end state must be the one the log holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Kind, ToolClass
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.records.log import iter_episodes
from muarl_cli.worlds.mcp.scenario import SHIPPED, mcp_scenario


async def same_again(episode: Episode) -> bool:
    """Whether the episode's writes lead to its end state on a fresh directory."""
    scenario = mcp_scenario(episode.scenario.removeprefix("mcp:"))
    task = next(task for task in scenario.tasks(episode.split) if task.id == episode.task_id)
    world = scenario.world(task)
    try:
        for event in episode.events:
            call = event.call
            if event.kind is Kind.CALL and call is not None and call.klass is ToolClass.WRITE:
                await world.call(ToolCall(call.id, call.name, call.arguments or {}), "agent")
        return world.fingerprint() == episode.state.final
    finally:
        world.close()


async def count_same(episodes: list[Episode]) -> int:
    room = asyncio.Semaphore(8)

    async def one(episode: Episode) -> bool:
        async with room:
            return await same_again(episode)

    return sum(await asyncio.gather(*(one(episode) for episode in episodes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "cold"
        words = [
            "synth-coldstart",
            "--scenarios",
            ",".join(SHIPPED),
            "--count",
            str(count),
            "--out",
            str(out),
            "--json",
        ]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "muarl_cli", *words], check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - started
        summary = json.loads(done.stdout)
        episodes = list(iter_episodes(out))
        result = {
            "accepted": summary["accepted"],
            "held": summary["held"],
            "scenarios": len(summary["accepted_by_scenario"]),
            "least": min(summary["accepted_by_scenario"].values()),
            "faults": sum(not episode.valid for episode in episodes),
            "replayed": len(episodes),
            "same": asyncio.run(count_same(episodes)),
            "seconds": round(seconds, 1),
            "per_second": round(len(episodes) / seconds, 1),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
