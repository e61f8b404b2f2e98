"""The recruiting desk's initial state: candidates, openings and applications, on a day that the policy names.

Invariant: an application's fields agree with its status, and the applications of one candidate are for different
openings, so that an opening names one of them.
"""

from __future__ import annotations

import random
from typing import Any

from muarl_cli.worlds.draws import person
from muarl_cli.worlds.store import Record

TODAY = "2026-06-04"
"""a thursday, so that tomorrow is friday"""
TOMORROW = "friday"
HOST = "inbox.org"
NAMES = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl", "anna", "theo", "mara", "noah")
LEVELS = (
    "junior", "senior", "lead", "deputy", "night", "weekend", "mobile", "remote", "seasonal", "assistant"
)  # fmt: skip
ROLES = (
    "welder", "baker", "nurse", "teacher", "analyst", "driver", "plumber", "editor", "cook", "chemist", "tailor",
    "gardener",
)  # fmt: skip
DEGREES = ("none", "vocational", "bachelor", "master")
"""from the lowest to the highest"""
DAYS = ("monday", "tuesday", "wednesday", "thursday")
PARTS = ("morning", "midday", "afternoon")
TIMES = tuple(f"{day} {part}" for day in DAYS for part in PARTS)
"""next week's interview times; those of tomorrow are too soon"""
SOON = tuple(f"{TOMORROW} {part}" for part in PARTS)
MODES = ("on site", "by video", "by telephone")
USUAL_DOCUMENTS = ("curriculum vitae", "cover letter")
MORE_DOCUMENTS = ("transcript", "portfolio", "work sample", "reference letter", "first aid card")
REASONS = ("found another employer", "staying where i am", "moving away", "too little money", "family matters")
STARTS = ("2026-07-01", "2026-08-01", "2026-09-01", "2026-10-01", "2026-11-01")
EARLY_STARTS = ("2026-06-08", "2026-06-15", "2026-06-22")
FIRST_START = "2026-07-01"
AGENCIES = ("veritas", "clearview", "northgate", "trustline")
CHANNELS = ("letter", "video message", "printed memo", "voice mail")
FIELDS = ("health", "crafts", "catering", "schooling", "laboratories", "transport")
SITES = ("bergen", "malmo", "tartu", "gdansk", "leeds", "aarhus")
TOPICS = ("a late answer", "a rude interviewer", "travel costs", "a lost document", "data protection")
ACTIVE = ("submitted", "screening", "invited", "scheduled", "offer")
STATUSES = (*ACTIVE, "rejected", "withdrawn")
MOST_ACTIVE = 7
STEP = 500
"""salaries are multiples of this, in euros a year"""

Tables = dict[str, dict[str, Record]]


def state(seed: int) -> Tables:
    """150 candidates, 120 openings and 1050 applications; the same seed gives the same state."""
    rng = random.Random(f"job_application/{seed}")
    openings = {f"{level} {role}": _opening(rng) for level in LEVELS for role in ROLES}
    numbers = [str(number) for number in rng.sample(range(1000, 10000), 1400)]
    candidates: dict[str, Record] = {}
    applications: dict[str, Record] = {}
    for candidate_id in [numbers.pop() for _ in range(150)]:
        statuses = [*rng.sample(STATUSES, 5), *rng.choices(("invited", "scheduled", "offer", "rejected"), k=2)]
        own = dict(zip([numbers.pop() for _ in statuses], rng.sample(list(openings), len(statuses)), strict=True))
        candidates[candidate_id] = person(rng, NAMES, HOST) | {
            "years": rng.randrange(0, 13),
            "degree": rng.choice(DEGREES),
            "applications": sorted(own),
            "next_number": numbers.pop() if rng.random() < 0.88 else "",
            "referred": rng.random() < 0.12,
            "alert": {} if rng.random() < 0.7 else {"field": rng.choice(FIELDS), "site": rng.choice(SITES)},
            "changed": [],
        }
        for (number, opening), status in zip(own.items(), statuses, strict=True):
            known = {"candidate_id": candidate_id, "opening": opening, "status": status}
            applications[number] = known | _details(rng, status, openings[opening])
    return {"candidates": candidates, "openings": openings, "applications": applications, "referrals": {}, "notes": {}}


def _opening(rng: random.Random) -> Record:
    low = 24000 + STEP * rng.randrange(0, 60)
    return {
        "status": rng.choices(("open", "on hold", "filled"), (7, 3, 1))[0],
        "deadline": f"2026-06-{rng.choice((1, 2, 3, 4, 8, 9, 12, 15, 19, 22, 26, 30)):02}",
        "years": rng.choice((0, 0, 1, 2, 3, 5, 8)),
        "degree": rng.choices(DEGREES, (4, 3, 2, 1))[0],
        "low": low,
        "high": low + STEP * rng.randrange(12, 30),
        "check": rng.random() < 0.6,
        "referrals": rng.random() < 0.7,
    }


def _details(rng: random.Random, status: str, opening: Record) -> dict[str, Any]:
    """The fields that an application of this status has."""
    details: dict[str, Any] = {"salary": rng.randrange(opening["low"], opening["high"], STEP), "check": "none"}
    if status in ("submitted", "screening"):
        details["documents"] = list(USUAL_DOCUMENTS[: rng.choice((1, 2))])
        details["completed"] = rng.random() < 0.12
    if status == "scheduled":
        details["when"] = rng.choice(TIMES if rng.random() < 0.8 else SOON)
        details["mode"] = rng.choice(MODES)
        details["moved"] = rng.random() < 0.15
    if status == "offer":
        details["offer"] = rng.randrange(opening["low"], opening["high"] - 6 * STEP, STEP)
        details["until"] = f"2026-06-{rng.choice((2, 4, 9, 10, 12, 16, 18)):02}"
        details["negotiated"] = rng.random() < 0.15
        details["check"] = rng.choices(("none", "running", "cleared"), (2, 1, 4))[0]
    if status == "rejected":
        details["explained"] = rng.random() < 0.2
    return details
