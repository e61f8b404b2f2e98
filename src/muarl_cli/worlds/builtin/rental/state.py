"""The letting agency's initial state: clients, homes, viewings, applications and leases, on a day the policy names.

Invariant: a client's viewings, applications and leases are of different homes each, so that a home names one of them;
a home that is leased is let, and one that is viewed or applied for is not.
"""

from __future__ import annotations

import random
from typing import Any

from muarl_cli.worlds.draws import person
from muarl_cli.worlds.store import Record

TODAY = "2026-06-04"
"""a thursday, so that tomorrow is friday"""
TOMORROW = "friday"
HOST = "mailbox.eu"
NAMES = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl", "anna", "theo", "mara", "noah")
ADJECTIVES = (
    "amber", "birch", "cedar", "copper", "fern", "granite", "hazel", "heron", "ivory", "juniper", "larch", "linden",
    "maple", "meadow", "poplar", "rowan", "saffron", "sparrow", "thistle", "willow",
)  # fmt: skip
NOUNS = (
    "arch", "barn", "cottage", "court", "crescent", "gate", "grange", "hall", "lodge", "loft", "manor", "mews",
    "place", "quay", "row", "square", "terrace", "tower", "villa", "yard",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "saturday")
PARTS = ("morning", "noon", "evening")
TIMES = tuple(f"{day} {part}" for day in DAYS for part in PARTS)
"""viewing times; those of tomorrow are too soon"""
SOON = tuple(f"{TOMORROW} {part}" for part in PARTS)
REASONS = ("found another place", "plans have changed", "too far from work", "too noisy", "too dark")
TERMS = ("half a year", "one year", "eighteen months", "two years", "three years")
SHORT_TERMS = ("two months", "three months")
STARTS = ("2026-06-15", "2026-07-01", "2026-07-15", "2026-08-01", "2026-08-15", "2026-09-01")
LATE_STARTS = ("2026-10-01", "2026-11-01", "2026-12-01")
LAST_START = STARTS[-1]
LEAVING = ("2026-09-30", "2026-10-31", "2026-11-30", "2026-12-31")
"""days that every notice period allows"""
SUMMER_LEAVING = ("2026-07-31", "2026-08-31")
"""days that only the short notice period allows"""
EARLY_LEAVING = ("2026-06-12", "2026-06-15", "2026-06-20", "2026-06-30")
"""days that no notice period allows"""
EARLIEST_LEAVING = {1: "2026-07-04", 3: "2026-09-04"}
"""by the months of notice of a lease"""
RENEWAL_FROM = "2026-09-04"
"""a lease that ends later is not renewed yet"""
METHODS = ("bank order", "debit card", "credit card", "bank guarantee")
CASH = "cash"
ITEMS = ("bedroom window", "oven", "intercom", "staircase", "bathroom tile", "shutter")
URGENT_ITEMS = ("heating", "boiler", "front door", "water pipe")
SMALL_ITEMS = ("light bulb", "blocked sink", "squeaking hinge")
"""what tenants mend themselves"""
ACCESS = ("caretaker key", "spare key", "key box")
SMALL_PETS = ("hamster", "rabbit", "parrot", "tortoise")
LARGE_PETS = ("terrier", "poodle", "greyhound", "sheepdog")
PETS_ALLOWED = ("none", "small", "all")
TOPICS = ("noise at night", "mould", "a wrong bill", "a stolen bicycle", "the lift")
RENT_STEP = 10
INCOME_FACTOR = 3
"""income that a home takes, in rents"""
MOST_APPLICATIONS = 3
MOST_MISSED = 2
PER_ROOM = 2
"""people that may live in a home, a room"""

Tables = dict[str, dict[str, Record]]


def state(seed: int) -> Tables:
    """130 clients, 400 homes, 749 viewings, 301 applications and 300 leases; the same seed gives the same
    state."""
    rng = random.Random(f"rental/{seed}")
    names = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    rng.shuffle(names)
    let, free = names[:300], names[300:]
    homes = {name: _home(rng, "let") for name in let}
    homes |= {name: _home(rng, rng.choices(("free", "reserved"), (5, 1))[0]) for name in free}
    numbers = [str(number) for number in rng.sample(range(1000, 10000), 1700)]
    tables: Tables = {table: {} for table in ("clients", "homes", "viewings", "applications", "leases", "notes")}
    for client_id in [numbers.pop() for _ in range(130)]:
        seen = ["planned", "planned", "done", "done", "done", *rng.choice(((), (), ("missed",), ("missed", "missed")))]
        applied = rng.choices(("open", "approved", "rejected", "withdrawn"), (3, 5, 1, 1), k=rng.choice((2, 2, 3)))
        held = rng.choices(("active", "notice given", "ended"), (8, 1, 1), k=rng.choice((2, 2, 3)))
        rows = {
            "viewings": [{"home": home, "status": s} | _viewing(rng, s) for home, s in _pairs(rng, free, seen)],
            "applications": [
                {"home": home, "status": s} | _application(rng, s) for home, s in _pairs(rng, free, applied)
            ],
            "leases": [{"home": let.pop(), "status": s} | _lease(rng, s) for s in held if let],
        }
        own: dict[str, list[str]] = {}
        for table, records in rows.items():
            own[table] = sorted(numbers.pop() for _ in records)
            for number, record in zip(own[table], records, strict=True):
                tables[table][number] = {"client_id": client_id} | record
        income = rng.randrange(1200, 3200, 50)
        tables["clients"][client_id] = person(rng, NAMES, HOST) | {"income": income, "changed": []} | own
        if rng.random() < 0.6:
            for name in (rng.choice(names[:300]), rng.choice(free), rng.choice(free)):
                homes[name]["client_id"] = client_id
    return tables | {"homes": homes}


def _pairs(rng: random.Random, homes: list[str], statuses: list[str]) -> list[tuple[str, str]]:
    return list(zip(rng.sample(homes, len(statuses)), statuses, strict=True))


def _home(rng: random.Random, status: str) -> Record:
    return {
        "client_id": "",
        "status": status,
        "rooms": rng.choice((1, 1, 2, 2, 3)),
        "rent": rng.randrange(320, 850, RENT_STEP),
        "pets": rng.choice(PETS_ALLOWED),
        "repriced": rng.random() < 0.1,
    }


def _viewing(rng: random.Random, status: str) -> dict[str, Any]:
    soon = status == "planned" and rng.random() < 0.2
    return {"when": rng.choice(SOON if soon else TIMES), "moved": rng.random() < 0.12}


def _application(rng: random.Random, status: str) -> dict[str, Any]:
    terms: dict[str, Any] = {"term": rng.choice(TERMS), "people": rng.choice((1, 1, 2))}
    if status == "approved":
        terms["until"] = f"2026-06-{rng.choice((1, 3, 4, 8, 10, 12, 15, 18)):02}"
    return terms


def _lease(rng: random.Random, status: str) -> dict[str, Any]:
    past, future = ("2026-02-28", "2026-05-31"), ("2026-06-30", "2026-07-31", "2026-08-31", "2026-12-31", "2027-03-31")
    return {
        "ends": rng.choice(past if status == "ended" else future),
        "notice": rng.choice((1, 3)),
        "arrears": rng.random() < 0.12,
        "renewed": rng.random() < 0.1,
        "release": "2026-06-30" if rng.random() < 0.12 else "",
        "deposit": rng.choice(("open", "open", "paid")),
        "people": rng.choice((1, 1, 2)),
        "pet": rng.choice(("", "", "", *SMALL_PETS)),
        "flatmates": [],
        "repairs": {item: rng.choice(ACCESS) for item in rng.sample((*ITEMS, *URGENT_ITEMS), rng.choice((0, 1, 2)))},
    }
