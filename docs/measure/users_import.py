"""Whether an import finds what is there: scripted users' conversations are redacted, imported, and compared with what
their users wanted and which injectors fired. Prints one JSON document.

python docs/measure/users_import.py [--chats 240]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.transcripts import Known, known_chats

from muarl_cli.pipeline.importing import episode_of
from muarl_cli.users.dialogue import Dialogue
from muarl_cli.users.facts import Facts, Vocabulary
from muarl_cli.users.habits import NOT_ESTIMATED, rates_of
from muarl_cli.users.injectors import Injector
from muarl_cli.users.observed import Reader, Request
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import Goal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=240)
    count = parser.parse_args().chats
    found = {name: measure(builtin(name), count) for name in BUILTIN}
    totals = Counter[str]()
    on, off = [], []
    for row in found.values():
        totals.update({key: value for key, value in row.items() if isinstance(value, int)})
        for shares in row["rates"].values():
            # of the chats that gave the opportunity, so it may be more than the share of all in which it fired
            on.append(shares["on"]["estimated"] / shares["on"]["fired"])
            off.append(shares["off"]["estimated"])
    print(
        json.dumps(
            {**totals, "least_estimated_of_fired": min(on), "most_estimated_of_none": max(off), "scenarios": found}
        )
    )


def measure(domain: Domain, count: int) -> dict[str, Any]:
    reader = Reader(domain.language, domain, "train")
    plain = known_chats(domain, count, {})
    seen = [(known, reader.requests(known.chat)) for known in plain]
    rows = Counter[str]()
    for known, requests in seen:
        rows["intents"] += [r.intent.name for r in requests] == [g.intent for g in known.goals]
        for goal, request in zip(known.goals, requests, strict=False):
            rows["goals"] += 1
            rows["told"] += set(request.told) == {slot for slot in goal.tell_first if not _known(slot, goal, known)}
            rows["changes"] += goal.change is not None
            rows["changes_found"] += goal.change is not None and request.change == goal.change.slot
    result = {k: rows[k] for k in ("intents", "goals", "told", "changes", "changes_found")}
    return {"chats": count, **result, "rates": rates(domain, reader, count)}


def _known(slot: str, goal: Goal, known: Known) -> bool:
    """Whether an earlier request of the chat had this fact, so that it is not told again."""
    earlier = known.goals[: known.goals.index(goal)]
    return any(other.slots.get(slot) == goal.slots[slot] for other in earlier)


def rates(domain: Domain, reader: Reader, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for injector in Injector:
        if injector in (*NOT_ESTIMATED, Injector.FRAGMENTS):  # here the agent answers every part of an opening
            continue
        shares = {}
        for name, rate in (("on", 1.0), ("off", 0.0)):
            chats = known_chats(domain, count // 4, {injector.value: rate})
            estimated = rates_of([(k.chat, _talk(domain, reader, k)) for k in chats]).get(injector)
            fired = sum(injector.value in k.fired for k in chats)
            shares[name] = {"fired": fired / len(chats), "estimated": estimated.share if estimated else None}
        found[injector.value] = shares
    return found


def _talk(domain: Domain, reader: Reader, known: Known) -> Dialogue:
    requests: list[Request] = reader.requests(known.chat)
    vocabulary = Vocabulary.of(domain.language, domain, "train")
    goals = tuple(request.goal() for request in requests)
    return Dialogue(
        episode_of(domain, known.chat, requests, "measure"), Facts("", None, domain.language, goals, vocabulary)
    )


if __name__ == "__main__":
    main()
