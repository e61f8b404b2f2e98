"""The corruption test: accepted trajectories of two built-in scenarios with each kind of damage. Prints JSON: how many
kinds, and how many are rejected for their own reason in every trajectory; how often that is the only reason."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from scoring.judged_talks import talk
from scoring.mutations import PLAIN
from verification.damage import DAMAGES, damaged, plain_tasks

from muarl_cli.verification.filters import chain
from muarl_cli.verification.subject import Subject
from muarl_cli.verification.verify import verify
from muarl_cli.worlds.domain import builtin

TALKS = 10
"""trajectories that each damage is done to, a scenario"""


def main() -> None:
    checks = chain("verified", 200)
    missed: dict[str, int] = {}
    clean = rejected = own = alone = tried = 0
    for name in PLAIN:
        domain = builtin(name)
        every = [task for split in ("test", "dev", "train") for task in domain.tasks(split)]
        cases = [(task, talk(domain, task, "careful")) for task in plain_tasks(domain, every)[:TALKS]]
        clean += sum(verify(Subject(episode, domain, task), checks).accepted for task, episode in cases)
        for kind, (_, wanted) in DAMAGES.items():
            for task, episode in cases:
                broken = replace(episode, events=tuple(damaged(kind, domain, task, episode.events)))
                keys = {reason.key for reason in verify(Subject(broken, domain, task), checks).reasons}
                found = {key for key in keys if key.startswith(wanted)}
                tried += 1
                rejected += bool(keys)
                own += bool(found)
                alone += bool(found) and keys == found
                if not found:
                    missed[kind] = missed.get(kind, 0) + 1
    kinds = len(DAMAGES)
    result = {"kinds": kinds, "caught": kinds - len(missed), "missed": missed, "trajectories": tried}
    shares = {"rejected": rejected / tried, "for_their_own_reason": own / tried, "for_it_alone": alone / tried}
    print(json.dumps(result | shares | {"clean_accepted": clean, "clean": len(PLAIN) * TALKS}))


if __name__ == "__main__":
    main()
