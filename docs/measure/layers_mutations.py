"""EV-03: how many of twelve edits of clean conversations break exactly the rule they are about. Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.judged_talks import talk
from scoring.mutations import MUTATIONS, base_for, reindexed

from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.domain import BUILTIN, builtin

TALKS = 10
"""conversations an edit is tried on"""


def main() -> None:
    exact, missed, tried = {}, [], 0
    for name in BUILTIN:
        domain = builtin(name)
        every = [task for split in ("test", "dev", "train") for task in domain.tasks(split)]
        exact[name] = 0
        for mutation, (edit, rule) in MUTATIONS.items():
            tasks = base_for(mutation, every, domain)[:TALKS]
            hits = 0
            for task in tasks:
                episode = talk(domain, task, "careful")
                changed = reindexed(episode, edit(domain, task, list(episode.events)))
                clean = judge(episode, domain, task).clean_success
                failed = judge(changed, domain, task).failed_rules
                hits += clean and len(failed) == 1 and next(iter(failed)).startswith(rule)
            tried += len(tasks)
            exact[name] += bool(tasks) and hits == len(tasks)
            if not tasks or hits < len(tasks):
                missed.append(f"{name}: {mutation}")
    print(json.dumps({"mutations": len(MUTATIONS), "exact": exact, "conversations": tried, "missed": missed}))


if __name__ == "__main__":
    main()
