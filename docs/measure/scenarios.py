"""What built-in scenarios hold, and what scripted agents do in them: counts, shares and floors over the test tasks.

python docs/measure/scenarios.py [NAME ...]

Prints JSON: by scenario its tools, entities, tasks, intents and families, the shares of tasks with two writes and with
a refusal, what the splits share; by agent its success (and, for those that follow the policy, its clean success) with
an interval over the test tasks of all the scenarios named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.judged_talks import talk

from muarl_cli.scoring.layer_summary import Judged, summarise_layers
from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import goals_of

AGENTS = ("oracle", "careful", "hasty", "do-nothing", "transfer-only")


def counts(domain: Domain) -> dict[str, Any]:
    """What the scenario holds."""
    tasks = [task for split in domain.splits() for task in domain.tasks(split)]
    goals = [goal for task in tasks for goal in goals_of(task.brief)]
    intents = Counter(goal.intent for goal in goals)
    families = Counter(task.family for task in tasks)
    refused = [task for task in tasks if any(goal.refused for goal in goals_of(task.brief))]
    writes = [task.gold_write_hash for task in tasks if task.writes]
    return {
        "tools": len(domain.tools),
        "entities": sum(len(records) for records in domain._tables.values()),
        "tasks": len(tasks),
        "intents": len(intents),
        "families": len(families),
        "largest_intent": max(intents.values()) / len(goals),
        "largest_family": max(families.values()) / len(tasks),
        "two_writes": sum(len(task.gold_writes) >= 2 for task in tasks) / len(tasks),
        "refused": len(refused) / len(tasks),
        "refused_beside_another": sum(bool(task.writes) for task in refused) / len(refused),
        "changed_mind": sum(any(goal.change for goal in goals_of(task.brief)) for task in tasks) / len(tasks),
        "shared": len(tasks) - len({task.task_hash for task in tasks}) + len(writes) - len(set(writes)),
    }


def floors(domains: list[Domain]) -> dict[str, Any]:
    """How each agent does on the test tasks."""
    found: dict[str, Any] = {}
    for agent in AGENTS:
        rows = [
            Judged(f"{domain.name}:{task.id}", judge(talk(domain, task, agent), domain, task))
            for domain in domains
            for task in domain.tasks("test")
        ]
        summary = summarise_layers(rows, resamples=2000, seed=1)
        found[agent.replace("-", "_")] = summary["success"] | {"clean": summary["clean_success"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BUILTIN), metavar="NAME", help=", ".join(BUILTIN))
    names = parser.parse_args().names
    domains = [builtin(name) for name in names]
    held = {domain.name: counts(domain) for domain in domains}
    bounds = {
        "fewest_tools": min(row["tools"] for row in held.values()),
        "most_tools": max(row["tools"] for row in held.values()),
        "fewest_entities": min(row["entities"] for row in held.values()),
        "fewest_tasks": min(row["tasks"] for row in held.values()),
        "fewest_intents": min(row["intents"] for row in held.values()),
        "largest_intent": max(row["largest_intent"] for row in held.values()),
        "fewest_two_writes": min(row["two_writes"] for row in held.values()),
        "fewest_beside_another": min(row["refused_beside_another"] for row in held.values()),
        "shared": sum(row["shared"] for row in held.values()),
    }
    print(json.dumps({"scenarios": held, "bounds": bounds, "scores": floors(domains)}))


if __name__ == "__main__":
    main()
