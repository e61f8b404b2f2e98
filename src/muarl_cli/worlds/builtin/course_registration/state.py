"""The registrar's initial state: students, course sections and enrolments, and the rules they stand under.

Invariant: each rule is one function of records, which the tools and the goals both ask, so what a user is refused in a
task is what a tool refuses. Loads and seats agree with the enrolments, so that every refusal can be seen by reading.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from muarl_cli.worlds.draws import person
from muarl_cli.worlds.store import Record

HOST = "campus.edu"
NAMES = ("aria", "bela", "cleo", "dina", "emil", "fred", "gala", "hans", "iris", "jane", "karl", "lola", "milo", "nina")
PROGRAMS = ("biology", "history", "computing", "economics", "design", "physics")
SUBJECTS = {
    "biology": ("genetics", "ecology", "anatomy", "botany", "zoology"),
    "history": ("antiquity", "archives", "diplomacy", "empires", "heraldry"),
    "computing": ("algorithms", "compilers", "databases", "networks", "robotics"),
    "economics": ("auctions", "banking", "growth", "labour", "taxation"),
    "design": ("ceramics", "drawing", "lighting", "textiles", "typography"),
    "physics": ("acoustics", "magnetism", "mechanics", "optics", "plasma"),
}
TIMES = tuple(
    f"{day} {hour}" for day in ("monday", "tuesday", "wednesday", "thursday") for hour in ("8am", "11am", "2pm")
)
MODES = ("on site", "online", "hybrid")
REASONS = ("schedule conflict", "too much work", "changed plans", "money trouble")
BASES = ("letter grade", "pass fail", "audit")
KINDS = ("credit overload", "late registration", "course repeat", "leave of absence")
GROUNDS = ("illness", "family matter", "work shift", "visa rules")
CEREMONIES = ("town hall", "open air", "by mail")
DELIVERIES = ("courier", "secure link", "pickup desk")
METHODS = ("bank transfer", "debit card", "scholarship", "cheque")
TOPICS = ("a wrong grade", "a missing credit", "an exam clash", "a fee dispute", "a lost diploma")

ADD_UNTIL, DROP_UNTIL, WITHDRAW_UNTIL, REGRADE_UNTIL = 2, 3, 8, 5
"""weeks of a section's run: the last one in which it can be joined, left without a trace, left with a mark, regraded"""
LIMITS = {"good": 16, "probation": 12}
"""most credits at a time, by standing"""
MINIMUM = 6
"""least credits that a student may fall to"""
QUEUE = 5
"""most students on a waitlist"""
PLAN_FROM, GRADUATE_FROM = 500, 110
"""the least balance that is paid in instalments (euros), the credits that it takes to graduate"""

Tables = dict[str, dict[str, Record]]


def state(seed: int) -> Tables:
    """240 students, 120 sections, some 900 enrolments; the same seed gives the same state."""
    rng = random.Random(f"course_registration/{seed}")
    numbers = (str(n) for n in rng.sample(range(1000, 10000), 3000))
    sections: dict[str, Record] = {}
    for program, subjects in SUBJECTS.items():
        for subject in subjects:
            for level in ("basic", "advanced"):
                for time in rng.sample(TIMES, 2):
                    sections[next(numbers)] = {
                        "title": f"{level} {subject}",
                        "program": program,
                        "time": time,
                        "credits": rng.choice((2, 3, 3, 4)),
                        "week": rng.choices((1, 2, 3, 5, 7, 9), (4, 4, 2, 2, 2, 1))[0],
                        "core": rng.random() < 0.3,
                        "needs": f"basic {subject}" if level == "advanced" else "",
                        "popular": rng.random() < 0.4,
                    }
    students: dict[str, Record] = {}
    enrolments: dict[str, Record] = {}
    for student_id in [next(numbers) for _ in range(240)]:
        program = rng.choice(PROGRAMS)
        students[student_id] = person(rng, NAMES, HOST) | {
            "program": program,
            "standing": rng.choices(("good", "probation"), (4, 1))[0],
            "passed": [f"basic {subject}" for subject in SUBJECTS[program] if rng.random() < 0.5],
            "earned": rng.choice((20, 45, 70, 95, 115, 120)),
            "hold": rng.choices(("", "advising", "library"), (8, 1, 1))[0],
            "balance": rng.choice((0, 0, 0, 180, 240, 650, 900)),
            "changed": [],
        }
        for section_id in _timetable(rng, students[student_id], sections):
            section = sections[section_id]
            enrolments[next(numbers)] = {
                "student_id": student_id,
                "section_id": section_id,
                "title": section["title"],
                "status": "waiting"
                if section["popular"] and section["week"] <= ADD_UNTIL and rng.random() < 0.5
                else "enrolled",
                "basis": rng.choice(BASES[:2]),
                "changed": [],
            }
    for section_id, section in sections.items():
        statuses = [e["status"] for e in enrolments.values() if e["section_id"] == section_id]
        taken, waiting = statuses.count("enrolled"), statuses.count("waiting")
        # whoever waits, waits for a full section
        free = 0 if waiting else rng.choice((1, 3, 5))
        section |= {"seats": taken + free, "taken": taken, "waiting": waiting}
    return {
        "students": students,
        "sections": sections,
        "enrolments": enrolments,
        "petitions": {},
        "orders": {},
        "cases": {},
    }


def _timetable(rng: random.Random, student: Record, sections: Mapping[str, Record]) -> list[str]:
    """Sections of a student: no title twice, no two at a time, two from other programmes at the most, within the
    limit."""
    chosen: list[str] = []
    wanted = rng.randrange(2, 6)
    for section_id in rng.sample(sorted(sections), len(sections)):
        section, own = sections[section_id], [sections[key] for key in chosen]
        foreign = sum(s["program"] != student["program"] for s in own)
        if len(chosen) == wanted:
            break
        if section["program"] != student["program"] and (foreign == 2 or rng.random() < 0.9):
            continue
        if section["title"] in student["passed"] or any(s["title"] == section["title"] for s in own):
            continue
        fits = sum(s["credits"] for s in own) + section["credits"] <= LIMITS[student["standing"]]
        if fits and all(s["time"] != section["time"] for s in own):
            chosen.append(section_id)
    return chosen


def load_of(enrolments: Iterable[Mapping[str, Any]], sections: Mapping[str, Mapping[str, Any]]) -> int:
    """Credits that a student takes now."""
    return sum(sections[e["section_id"]]["credits"] for e in enrolments if e["status"] == "enrolled")


def barrier(
    student: Mapping[str, Any], section: Mapping[str, Any], titles: Collection[str], times: Collection[str], load: int
) -> str:
    """Why a student can neither join a section nor wait for it, "" where nothing stands in the way.

    `titles` are those of the courses they take or wait for, `times` and `load` those of the courses they take.
    """
    if student["hold"]:
        return f"a hold by {student['hold']}"
    if section["program"] != student["program"]:
        return f"a course of {section['program']} only"
    if section["week"] > ADD_UNTIL:
        return "too late to join"
    if section["title"] in (*student["passed"], *titles):
        return "taken already"
    if section["needs"] and section["needs"] not in student["passed"]:
        return f"needs {section['needs']}"
    if section["time"] in times:
        return "a time conflict"
    if load + section["credits"] > LIMITS[student["standing"]]:
        return "over the credit limit"
    return "" if section["taken"] < section["seats"] or section["waiting"] < QUEUE else "full, and so is the waitlist"


def is_full(section: Mapping[str, Any]) -> bool:
    return bool(section["taken"] >= section["seats"])


def staying(section: Mapping[str, Any], load: int) -> str:
    """Why a student enrolled in a section cannot leave it any more, "" where they can."""
    if section["week"] > WITHDRAW_UNTIL:
        return "too late to leave"
    return f"below {MINIMUM} credits" if load - section["credits"] < MINIMUM else ""


def fixed_basis(section: Mapping[str, Any], enrolment: Mapping[str, Any]) -> str:
    """Why the grading of an enrolment cannot be changed, "" where it can."""
    if enrolment["status"] != "enrolled":
        return f"the enrolment is {enrolment['status']}"
    if section["core"]:
        return "a core course"
    return "too late to change" if section["week"] > REGRADE_UNTIL else ""


def unready(intent: str, student: Mapping[str, Any]) -> str:
    """Why a student cannot have what concerns nothing but themselves, "" where they can."""
    balance = student["balance"]
    if intent in ("transcript", "graduate") and balance:
        return "an open balance"
    if intent == "graduate" and student["earned"] < GRADUATE_FROM:
        return f"less than {GRADUATE_FROM} credits"
    if intent in ("petition", "program") and student["standing"] == "probation":
        return "on probation"
    if intent == "program" and student["hold"]:
        return f"a hold by {student['hold']}"
    if intent == "pay" and not balance:
        return "no open balance"
    if intent == "plan" and balance < PLAN_FROM:
        return f"a balance below {PLAN_FROM}"
    return ""
