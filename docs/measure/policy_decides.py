"""How often the policy decides what is right in built-in scenarios, and what becomes of who guesses.

python docs/measure/policy_decides.py [NAME ...]

Prints JSON: the share of tasks in which a request is refused or opens with the words of another one; and, over all the
requests that open with the words of another one, how often carrying that other one out ends in the gold state.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from worlds.test_builtin import DECIDING, rivals_carried_out

from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goals_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=DECIDING, metavar="NAME", help=", ".join(DECIDING))
    tasks = decided = tried = right = 0
    for name in parser.parse_args().names:
        domain = builtin(name)
        alike = {intent.name for intent in domain.language.intents.values() if domain.language.rivals(intent)}
        for split in domain.splits():
            for task in domain.tasks(split):
                tasks += 1
                decided += any(goal.refused or goal.intent in alike for goal in goals_of(task.brief))
            outcomes = [ended_right for _, _, ended_right in rivals_carried_out(domain, split)]
            tried, right = tried + len(outcomes), right + sum(outcomes)
    print(json.dumps({"tasks": tasks, "decided": decided / tasks, "guesses": tried, "guesses_right": right}))


if __name__ == "__main__":
    main()
