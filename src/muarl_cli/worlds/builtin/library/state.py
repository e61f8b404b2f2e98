"""The library's initial state: members, titles with their copies, loans and reservations, and the rules they stand
under.

Invariant: copies agree with what is lent and who waits, so that every refusal of a tool can be seen by reading first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from muarl_cli.worlds.draws import person
from muarl_cli.worlds.store import Record

HOST = "post.net"
NAMES = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl", "anna", "theo", "mara", "noah")
ADJECTIVES = ("quiet", "golden", "broken", "hidden", "northern", "frozen", "distant", "crimson", "hollow", "early")
NEW_ADJECTIVES = ("electric", "velvet", "paper", "burning", "lonely", "second")
"""titles that the library does not hold yet"""
NOUNS = (
    "river", "garden", "harvest", "mirror", "island", "winter", "letter", "orchard", "station", "bridge", "crown",
    "tide",
)  # fmt: skip
BRANCHES = ("central", "harbour", "hillside", "riverside", "campus")
SETTLEMENTS = ("new copy", "used copy", "small donation")
REASONS = ("got it elsewhere", "no time to read", "wrong book", "moving away")
METHODS = ("cash", "debit", "credit", "voucher")
FORMATS = ("hardcover", "paperback", "audiobook", "large print")
PARTNERS = ("city college", "state archive", "music school", "old abbey")
TIERS = ("plus", "family", "premium")
EVENTS = ("poetry night", "chess club", "story hour", "film evening", "book swap", "craft morning")
TOPICS = ("noise in the hall", "a broken scanner", "a lost card", "a wrong fine", "cold rooms")
LIMITS = {"basic": 3}
OTHER_LIMIT = 8

Tables = dict[str, dict[str, Record]]


def state(seed: int) -> Tables:
    """260 members, 120 titles, some 600 loans and 250 reservations; the same seed gives the same state."""
    rng = random.Random(f"library/{seed}")
    titles = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    rng.shuffle(titles)
    wanted = titles[:30]
    members: dict[str, Record] = {}
    loans: dict[str, Record] = {}
    holds: dict[str, Record] = {}
    numbers = iter(rng.sample(range(1000, 10000), 4000))
    for member_id in [str(next(numbers)) for _ in range(260)]:
        tier = rng.choices(("basic", *TIERS), (7, 1, 1, 1))[0]
        own_loans = rng.sample(titles[20:], rng.choice((1, 2, 3, 3) if tier == "basic" else (2, 3, 4)))
        # the titles of one member's loans and reservations differ, so that a title names one of them
        own_holds = rng.sample([t for t in wanted if t not in own_loans], rng.choice((0, 1, 1, 2)))
        members[member_id] = person(rng, NAMES, HOST) | {
            "tier": tier,
            "fine": rng.choice((0, 0, 0, 2, 3, 5, 8)),
            "changed": [],
        }
        for title in own_loans:
            status = rng.choices(("open", "overdue", "lost"), (17, 2, 2))[0]
            loans[str(next(numbers))] = {
                "member_id": member_id, "title": title, "status": status, "renewed": rng.random() < 0.15
            }  # fmt: skip
        for title in own_holds:
            status = rng.choices(("waiting", "in transit", "ready"), (6, 1, 1))[0]
            holds[str(next(numbers))] = {
                "member_id": member_id, "title": title, "status": status, "branch": rng.choice(BRANCHES), "moved": False
            }  # fmt: skip
    return {
        "members": members,
        "books": {title: _book(rng, title, loans, holds) for title in titles},
        "loans": loans,
        "holds": holds,
        "events": {event: {"day": rng.randrange(1, 29), "seats": 900} for event in EVENTS},
        "requests": {},
        "registrations": {},
        "notes": {},
    }


def _book(rng: random.Random, title: str, loans: Mapping[str, Record], holds: Mapping[str, Record]) -> Record:
    """Copies that agree with what is lent; about a third of the titles can be borrowed at once."""
    lent = sum(loan["title"] == title and loan["status"] != "lost" for loan in loans.values())
    waiting = sum(hold["title"] == title for hold in holds.values())
    free = rng.choice((0, 1)) if waiting > 1 else rng.choice((0, 2, 3))
    return {"copies": lent + free, "free": free, "waiting": waiting}


def book_status(book: Mapping[str, Any]) -> str:
    """free: more copies on the shelf than members waiting; kept: all there are for others; lent: none is there."""
    if book["free"] > book["waiting"]:
        return "free"
    return "kept for others" if book["free"] else "lent"


def standing(member: Mapping[str, Any], statuses: list[str]) -> str:
    """Whether a member may borrow, from the statuses of their loans."""
    if "overdue" in statuses:
        return "has an overdue loan"
    limit = LIMITS.get(member["tier"], OTHER_LIMIT)
    return "has reached the limit" if statuses.count("open") >= limit else "in good standing"
