"""Whether what is refused follows from the policy text and the record read: a second reading of two policies, written
from their texts alone, against all goals of all tasks. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from worlds.test_recruiting_and_letting import READERS, every_goal, reason_of, seen_by

from muarl_cli.worlds.domain import builtin


def main() -> None:
    found: Counter[str] = Counter()
    reasons: set[tuple[str, str]] = set()
    for name, allows in READERS.items():
        domain = builtin(name)
        for task, goal in every_goal(domain):
            seen = seen_by(domain, task, goal)
            found["goals"] += 1
            found["agree"] += allows(goal.intent, goal.slots, seen) == (not goal.refused)
            found["refused"] += bool(goal.refused)
            if goal.refused:
                reasons.add((name, reason_of(goal)))
            for rival in domain.language.rivals(domain.language.intents[goal.intent]):
                found["either_or"] += 1
                found["one_right"] += not allows(rival.name, goal.slots, seen)
    print(json.dumps({**found, "reasons": len(reasons)}))


if __name__ == "__main__":
    main()
