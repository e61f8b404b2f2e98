"""Every watchdog on a planted failure and on healthy runs: prints one JSON document.

    python docs/measure/watchdogs.py [--healthy 200]

The histories are those of tests/training/test_watchdogs.py: runs of 30 steps that learn, with noise; in a planted one a
single figure goes bad half way. `right` counts the watchdogs that fired on their own failure with no other beside them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted failures and healthy runs.")
    parser.add_argument("--healthy", type=int, default=200, help="healthy runs")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("watched", TESTS / "training" / "test_watchdogs.py")
    assert spec is not None and spec.loader is not None
    watched: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(watched)
    right = sum(watched._names(watched._planted(name)) == [name] for name in watched.PLANTED)
    alarms = steps = 0
    for seed in range(options.healthy):
        rows = watched._healthy(30, seed)
        for cut in range(1, len(rows) + 1):
            alarms += len(watched._names(rows[:cut]))
            steps += 1
    found = {"watchdogs": len(watched.WARN), "right": right, "false_alarms": alarms, "healthy_steps": steps}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
