"""The audit against planted bugs: which of them it finds, and what it finds in a clean log. Prints one JSON document.

python docs/measure/users_planted.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.planted_users import PLANTS, clean

from muarl_cli.users.audit import audit
from muarl_cli.worlds.domain import BUILTIN


def main() -> None:
    found, missed, alarms = 0, [], []
    for name in BUILTIN:
        log = clean(name)
        alarms += audit(log).failed
        for metric, plant in PLANTS.items():
            hit = metric in audit(plant(log)).groups[0].failed
            found += hit
            missed += [] if hit else [f"{name}/{metric}"]
    print(
        json.dumps(
            {"planted": len(PLANTS) * len(BUILTIN), "found": found, "missed": missed, "clean_log_alarms": alarms}
        )
    )


if __name__ == "__main__":
    main()
