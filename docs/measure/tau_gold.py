"""Gold replays of TAU2 and TAU1 through our loop and their scorers, straight and without the last write.

python docs/measure/tau_gold.py tau2|tau1
"""

from __future__ import annotations

import json
import sys

from muarl_cli.benchmarks.provider import provider_of


def main(name: str) -> None:
    provider = provider_of(name)
    counts = {}
    for domain in provider.domains:
        counts |= {f"{domain}:{split}": count for split, count in provider.gold_check(domain).items()}
    print(
        json.dumps(
            {
                "tasks": sum(count.tasks for count in counts.values()),
                "passed": sum(count.passed for count in counts.values()),
                "corrupted": sum(count.corrupted for count in counts.values()),
                "unseen": sum(len(count.known_unseen) for count in counts.values()),
                "corrupted_failed": sum(count.corrupted_failed for count in counts.values()),
                "sets": {name.replace(":", "_"): count.to_json() for name, count in counts.items()},
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
