"""What doing nothing and handing everyone over scores in each domain of TAU2, and of TAU1 where a checkout is named.

python docs/measure/tau_floors.py
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.episodes import play_all

from muarl_cli.agents.floors import DoNothing, TransferOnly
from muarl_cli.benchmarks.checkouts import root_of
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.scenario import Task, without_outputs

SETS = {
    "tau2": ("retail:base", "airline:base", "telecom:base", "banking_knowledge:base"),
    "tau1": ("retail:test", "airline:test"),
}


def share(scenario: Any, tasks: Sequence[Task], agent: Any) -> float:
    played = asyncio.run(play_all(scenario, tasks, agent, MinimalUsers()))
    return sum(p.outcome.reward for p in played) / len(played)


def main() -> None:
    rows: dict[str, Any] = {}
    for source, sets in SETS.items():
        if source == "tau1" and root_of("tau1") is None:
            continue
        for name in sets:
            domain, split = name.split(":")
            scenario = scenario_of(source, domain)
            tasks = list(scenario.tasks(split))
            rows[f"{source}_{domain}"] = {
                "tasks": len(tasks),
                "do_nothing": share(scenario, tasks, DoNothing()),
                "transfer_only": share(scenario, tasks, TransferOnly()),
                "do_nothing_outputs_dropped": share(scenario, [without_outputs(t) for t in tasks], DoNothing()),
            }
    print(json.dumps({"floors": rows}))


if __name__ == "__main__":
    main()
