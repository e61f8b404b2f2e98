"""What a world costs an episode: a fresh state before it and the check of the database after it; one JSON object.

    python benchmarks/worlds.py [--scenario rental] [--records 2000] [--tasks 200] [--repeat 5]

Each task's gold calls are played in a fresh world of a built-in scenario, then its end state is graded, as in every
episode. Timed are the opening and the grading, not the calls between them. The peer, in the same run, does what
benchmarks commonly do: a deep copy of the whole database before, a hash of its canonical JSON after, the gold state's
hash known. `ratio` is its time over ours, `ms` our median milliseconds an episode.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import statistics
import time
from typing import Any

from muarl_cli.hashing import canonical_json
from muarl_cli.worlds.domain import Domain, builtin
from muarl_cli.worlds.scenario import Task


def padded(scenario: Domain, records: int) -> Any:
    """The scenario's database with old copies of its records in a table of their own, so that it has so many."""
    tables = dict(scenario._tables)
    every = [record for rows in tables.values() for record in rows.values()]
    missing = max(0, records - len(every))
    tables["archive"] = {f"a{n}": dict(every[n % len(every)]) for n in range(missing)}
    scenario.__dict__["_tables"] = tables  # before its first world is opened
    return tables


def ours(scenario: Domain, tasks: list[Task]) -> float:
    """Seconds an episode."""
    spent = 0.0
    for task in tasks:
        began = time.perf_counter()
        world = scenario.world(task)
        spent += time.perf_counter() - began
        for call in task.gold:
            assert world.run(call.name, call.arguments).ok
        began = time.perf_counter()
        outcome = scenario.outcome(task, world, ())
        spent += time.perf_counter() - began
        assert outcome.detail["state"], task.id
    return spent / len(tasks)


def theirs(tables: Any, episodes: int) -> float:
    """Seconds an episode of copying and hashing everything."""
    began = time.perf_counter()
    for _ in range(episodes):
        own = copy.deepcopy(tables)
        hashlib.sha256(canonical_json(own).encode()).hexdigest()
    return (time.perf_counter() - began) / episodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="rental", help="the built-in scenario with the most records")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    scenario = builtin(options.scenario)
    tables = padded(scenario, options.records)
    tasks = list(scenario.tasks("train"))[: options.tasks]
    ours(scenario, tasks)  # the gold states are computed once a run
    pairs = [(ours(scenario, tasks), theirs(tables, 5)) for _ in range(options.repeat)]
    print(
        json.dumps(
            {
                "records": sum(map(len, tables.values())),
                "tasks": len(tasks),
                "ms": round(1000 * statistics.median(mine for mine, _ in pairs), 4),
                "copy_and_hash_ms": round(1000 * statistics.median(peer for _, peer in pairs), 2),
                "ratio": round(statistics.median(peer / mine for mine, peer in pairs)),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
