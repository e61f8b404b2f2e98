"""What the states and the goals of the built-in domains are drawn with: people, other values, a record to be about.

Invariant: every draw takes its randomness from the generator it is given and from nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from muarl_cli.worlds.store import Record

Drawn = tuple[dict[str, Any], str, dict[str, str]]
"""slots of a goal, why it must be refused ("" where it can be done), hints for what the user may not know"""


def phone_number(rng: random.Random) -> str:
    """Six digits."""
    return str(rng.randrange(100000, 1000000))


def email_address(rng: random.Random, names: Sequence[str], host: str) -> str:
    return f"{rng.choice(names)}{rng.randrange(10, 100)}@{host}"


def person(rng: random.Random, names: Sequence[str], host: str) -> Record:
    """Name, email and phone of somebody."""
    return {"name": rng.choice(names), "email": email_address(rng, names, host), "phone": phone_number(rng)}


def another(rng: random.Random, options: Iterable[Any], value: Any) -> Any:
    """One of the options other than `value`."""
    return rng.choice([option for option in options if option != value])


def other(
    rng: random.Random, slot: str, value: Any, options: Mapping[str, Iterable[Any]], names: Sequence[str], host: str
) -> Any:
    """A value of this slot other than `value`: a new phone or email, else one of the slot's options."""
    if slot == "phone":
        return another(rng, [phone_number(rng) for _ in range(2)], value)
    if slot == "email":
        return another(rng, [email_address(rng, names, host) for _ in range(2)], value)
    if slot not in options:
        raise ValueError(f"nobody changes their mind about {slot}")
    return another(rng, options[slot], value)


def fitting(
    rng: random.Random, records: Mapping[str, Record], reason: Callable[[Record], str], wish: str, spread: bool = False
) -> tuple[str, str] | None:
    """A record about which the wish ("possible" or "refused") comes true, as (key, why it is refused or ""); None where
    there is none. `spread`: all reasons that occur are equally likely, however few records they have."""
    reasons = {key: reason(record) for key, record in records.items()}
    keys = [key for key, why in reasons.items() if bool(why) == (wish == "refused")]
    if not keys:
        return None
    if spread:
        why = rng.choice(sorted({reasons[key] for key in keys}))
        keys = [key for key in keys if reasons[key] == why]
    key = rng.choice(keys)
    return key, reasons[key]


def chosen(
    rng: random.Random, rows: Iterable[Drawn], wish: str, used: Mapping[str, Any], about: Sequence[str]
) -> Drawn | None:
    """One of these goals for which the wish comes true, None where there is none.

    `about` are the slots that name a record: what an earlier goal (`used`) was about is left alone. Refusals are drawn
    by their reason first, and a rare one sooner, so that the reason most records have does not crowd out the others.
    """
    taken = {used[slot] for slot in about if slot in used}
    kinds: dict[str, list[Drawn]] = {}
    for row in rows:
        if bool(row[1]) == (wish == "refused") and not any(row[0].get(slot) in taken for slot in about):
            words = [word for word in row[1].split() if word.isalpha()]
            kinds.setdefault(" ".join(words[:3]), []).append(row)
    if not kinds:
        return None
    kind = rng.choices(list(kinds.values()), [len(same) ** -2 for same in kinds.values()])[0]
    return rng.choice(kind)
