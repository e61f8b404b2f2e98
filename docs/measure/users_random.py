"""US-04: what the audit finds in the scripted user over many episodes with random agents. Prints one JSON document.

python docs/measure/users_random.py [--episodes 10000]
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.random_agents import episodes

from muarl_cli.users.audit import audit
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN, builtin

METRICS = ("S1", "S2", "S5", "S7", "S8", "S14", "S15")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    count = parser.parse_args().episodes // len(BUILTIN)
    half = {injector.value: 0.5 for injector in Injector}
    result: dict[str, object] = {"episodes": count * len(BUILTIN)}
    for label, rates in (("plain", {}), ("injected", half)):
        group = audit(chain.from_iterable(episodes(builtin(name), count, rates) for name in BUILTIN)).groups[0]
        result[label] = {metric: group[metric].value for metric in METRICS} | {"ended_by_user": group["S5"].n}
        result[f"{label}_faults"] = sum(group[metric].value or 0.0 for metric in ("S1", "S2", "S5", "S7", "S8"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
