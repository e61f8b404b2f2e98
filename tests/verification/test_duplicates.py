"""Near duplicates: found above the limit, never claimed below it."""

from __future__ import annotations

import random

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.verification.duplicates import Seen, shingles, similarity

WORDS = [f"word{n}" for n in range(400)]


def _talk(words: list[str]) -> tuple[Event, ...]:
    return (Event(0, Actor.AGENT, Kind.SAY, " ".join(words)),)


def _changed(words: list[str], n: int, rng: random.Random) -> list[str]:
    found = list(words)
    for place in rng.sample(range(len(found)), n):
        found[place] = rng.choice(WORDS)
    return found


def test_every_pair_above_the_limit_is_found_and_none_below_it_is_claimed() -> None:
    rng = random.Random(3)
    base = [rng.choices(WORDS, k=120) for _ in range(40)]
    seen = Seen(0.8)
    for number, words in enumerate(base):
        seen.keep(str(number), shingles(_talk(words)))
    above = below = 0
    for number, words in enumerate(base):
        for changes in (0, 1, 2, 3, 6, 12, 40):
            new = shingles(_talk(_changed(words, changes, rng)))
            measured = similarity(new, shingles(_talk(words)))
            found = seen.like(new)
            if measured >= 0.8:
                above += 1
                assert found == (str(number), measured)
            else:
                below += 1
                assert found is None
    assert above >= 60 and below >= 60


def test_an_empty_conversation_is_like_another_empty_one() -> None:
    seen = Seen(1.0)
    seen.keep("a", shingles(()))
    assert seen.like(shingles(())) == ("a", 1.0)
