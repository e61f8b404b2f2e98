"""US-10: what the scripted user makes of noise: 10,000 agent turns that mean nothing, and 10,000 that are sewn together
from pieces of meaning. Prints one JSON document.

    python docs/measure/users_fuzz.py [--turns 10000]

Noise is empty, up to 100 kB long, full of emoji, control characters and end tokens: nobody may crash, agree, or stop
while they have patience. Sewn turns hold proposals with wrong values, reports, refusals, goodbyes: nobody may crash or
stop with a consent outstanding, and a yes needs a turn that names the wanted values.
"""

from __future__ import annotations

import argparse
import json
import random
import string

from muarl_cli.users.agenda import PATIENCE, AgendaUser
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import said

SIGNS = string.printable + "🦄é漢\x00\x1b\u202e\ufeff\u200d"
TOKENS = ("###STOP###", "###TRANSFER###", "<|im_end|>", "\n- ", "{goal}", "%s")
PIECES = ("shall i go ahead?", "is that right?", "do you confirm?", "done", "it is cancelled", "sorry", "cannot",
          "please", "what is your id?", "anything else?", "goodbye!", "one moment", "9999", "oslo", "[y/n]",
          *TOKENS)  # fmt: skip


def users(rng: random.Random) -> list[AgendaUser]:
    """One user of each built-in scenario, with a random task of theirs, who has said their opening."""
    found = []
    for name in BUILTIN:
        domain = builtin(name)
        user = AgendaUser(domain.language, goals_of(rng.choice(domain.tasks("test")).brief), rng.getrandbits(32))
        user.answer("")
        found.append(user)
    return found


def noise(rng: random.Random, turns: int) -> dict[str, int]:
    found = {"turns": 0, "exceptions": 0, "false_stops": 0, "false_consents": 0, "longest": 0}
    while found["turns"] < turns:
        for user in users(rng):
            for _ in range(PATIENCE - 1):
                size = 100_000 if found["turns"] % 1000 == 0 else rng.choice((0, 1, 5, 40, 400))
                text = "".join(rng.choices(SIGNS, k=size)) + rng.choice(TOKENS) * rng.randrange(3)
                found["turns"] += 1
                found["longest"] = max(found["longest"], len(text))
                try:
                    _, end, _ = user.answer(text)
                except Exception:
                    found["exceptions"] += 1
                    break
                found["false_stops"] += end is not None and user.patience > 0
                found["false_consents"] += user.consented
                if end is not None:  # even noise may hold the word "bye", and that costs patience
                    break
    return found


def sewn(rng: random.Random, turns: int) -> dict[str, int]:
    found = {"turns": 0, "exceptions": 0, "stops_with_consent": 0, "false_consents": 0, "consents": 0, "stops": 0}
    while found["turns"] < turns:
        for user in users(rng):
            for _ in range(20):
                goal = user.goals[min(user.at, len(user.goals) - 1)]
                own = [str(value) for value in goal.final.values() if not isinstance(value, dict)]
                text = " ".join(rng.choice((*PIECES, *own, *own)) for _ in range(rng.randrange(1, 9)))
                waiting = user.consented
                found["turns"] += 1
                try:
                    _, end, _ = user.answer(text)
                except Exception:
                    found["exceptions"] += 1
                    break
                if user.consented and not waiting:
                    found["consents"] += 1
                    found["false_consents"] += not _names(user, text)
                if end is not None:
                    found["stops"] += 1
                    found["stops_with_consent"] += user.consented
                    break
    return found


def _names(user: AgendaUser, text: str) -> bool:
    """Whether a text names what the user wants now, who they are left out."""
    goal = user.goals[user.at]
    intent = user.language.intents[goal.intent]
    wanted = goal.final if user.at in user.changed else goal.slots
    shown = [s for s in intent.slots[1:] if "{" + s + "}" in intent.propose and s not in goal.unknown]
    return all(said(wanted[slot], text) for slot in shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10_000)
    turns = parser.parse_args().turns
    rng = random.Random(10)
    print(json.dumps({"noise": noise(rng, turns), "sewn": sewn(rng, turns)}))


if __name__ == "__main__":
    main()
