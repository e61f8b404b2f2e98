"""The paper's own overlap: trained on TAU1 test with the required outputs emptied, evaluated on TAU1 test and on TAU2.

Prints one JSON document: of each evaluated set how many tasks the guard finds, and whether an evaluation is refused.
Needs a checkout of TAU1 (MUARL_TAU1_ROOT).
"""

from __future__ import annotations

import json
from dataclasses import replace

from muarl_cli.records.lineage import Lineage, TaskMark, TrainedSet, overlap
from muarl_cli.worlds.catalog import load_tasks

TRAINED = ["tau1:retail:test", "tau1:airline:test"]
EVALUATED = ["tau1:retail:test", "tau1:airline:test", "tau2:retail:base", "tau2:airline:base"]


def main() -> None:
    emptied = [TaskMark.of(replace(task, communicate=())) for _, task in load_tasks(TRAINED)]
    trained = TrainedSet.of("rl", "rl-train", emptied)
    lineage = Lineage.make(stage="rl-train", run_id="rl", settings_hash="", seeds={}, trained_on=[trained])
    found = {}
    for name in EVALUATED:
        tasks = [task for _, task in load_tasks([name])]
        rows = overlap(lineage, tasks)
        other_pair = [o for o in rows if o.by == "task_hash" or not o.within_official_pair]
        found["_".join(name.split(":"))] = {
            "tasks": len(tasks),
            "with_writes": sum(task.writes for task in tasks),
            "found": len(rows),
            "refusing": len(other_pair),
        }
    print(json.dumps({"trained": len(emptied), **found}))


if __name__ == "__main__":
    main()
