"""What scripted agents score on the four MCP scenarios, on their real servers: prints one JSON object.

    python docs/measure/mcp_scenarios.py [--tasks 20]

`muarl mcp install` comes first. Oracle, careful and hasty agents and the two floors play `--tasks` test tasks of each
scenario through `muarl rollout`; then the careful agent's episodes are judged by every rule from the log alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.mcp.scenario import SHIPPED, mcp_scenario

AGENTS = ("oracle", "careful", "hasty", "do-nothing", "transfer-only")


def rollout(folder: Path, agent: str, tasks: int) -> float:
    """The score of an agent; raises where the stage fails or an episode ends in a fault."""
    sets = [word for name in SHIPPED for word in ("--tasks", f"mcp:{name}:test")]
    words = ["rollout", "--agent", agent, *sets, "--max-tasks", str(tasks), "--out", str(folder), "--json", "group=1"]
    done = subprocess.run([sys.executable, "-m", "muarl_cli", *words], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["score"]["mean"])


def broken_rules(folder: Path) -> int:
    """How many findings of the careful agent's episodes are failures."""
    failures = 0
    for episode in iter_episodes(folder):
        scenario = mcp_scenario(episode.scenario.removeprefix("mcp:"))
        task = next(task for task in scenario.tasks("test") if task.id == episode.task_id)
        failures += len(judge(episode, scenario, task).failed_rules)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    tasks = parser.parse_args().tasks * len(SHIPPED)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        result: dict[str, Any] = {agent.replace("-", "_"): rollout(root / agent, agent, tasks) for agent in AGENTS}
        result |= {"tasks": tasks, "broken_rules": broken_rules(root / "careful")}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
