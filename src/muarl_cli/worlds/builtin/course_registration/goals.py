"""How a student's goals are drawn from the registrar's state.

Invariant: whether a goal can be served is decided by the rules of state.py on the initial state; goals of one task
never touch the same enrolment, and two of them never change what the other one's answer depends on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from muarl_cli.worlds.builtin.course_registration import state
from muarl_cli.worlds.builtin.course_registration.state import Tables
from muarl_cli.worlds.draws import Drawn, fitting, other
from muarl_cli.worlds.store import Record

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "mode": state.MODES,
    "reason": state.REASONS,
    "basis": state.BASES,
    "kind": state.KINDS,
    "ground": state.GROUNDS,
    "ceremony": state.CEREMONIES,
    "guests": tuple(range(1, 7)),
    "delivery": state.DELIVERIES,
    "copies": tuple(range(1, 9)),
    "method": state.METHODS,
    "months": tuple(range(2, 9)),
    "program": state.PROGRAMS,
    "topic": state.TOPICS,
}
"""slots with few values"""
STUDENT_SLOTS: Mapping[str, tuple[str, ...]] = {
    "petition": ("kind", "ground"),
    "graduate": ("ceremony", "guests"),
    "transcript": ("delivery", "copies"),
    "pay": ("method",),
    "plan": ("months",),
    "program": ("program",),
    "phone": ("phone",),
    "email": ("email",),
    "case": ("topic",),
    "handover": ("topic",),
}
"""intents that concern the student alone, with what they need besides"""
TAKING, LEAVING, PAYING = {"enrol", "waitlist", "program"}, {"drop", "withdraw"}, {"pay", "plan"}
"""of each of these only one in a task, where the first was not refused: the first changes the answer to the second"""


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the students."""
    return list(tables["students"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this student: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal. None where this student has
    nothing that fits.
    """
    if not used.get("refused") and any({intent, used.get("intent")} <= kind for kind in (TAKING, LEAVING, PAYING)):
        return None
    slots: dict[str, Any] = {"student_id": subject}
    student = tables["students"][subject]
    if intent in STUDENT_SLOTS:
        refused = state.unready(intent, student)
        if bool(refused) != (wish == "refused"):
            return None
        values = {slot: other_value(rng, slot, student.get(slot)) for slot in STUDENT_SLOTS[intent]}
        return slots | values, refused, {}
    own = {key: record for key, record in tables["enrolments"].items() if record["student_id"] == subject}
    if intent in ("enrol", "waitlist"):
        return _section_goal(rng, intent, slots, student, own, tables, wish)
    return _enrolment_goal(rng, intent, slots, own, tables["sections"], wish, used)


def _section_goal(
    rng: random.Random,
    intent: str,
    slots: dict[str, Any],
    student: Record,
    own: Mapping[str, Record],
    tables: Tables,
    wish: str,
) -> Drawn | None:
    sections = tables["sections"]
    titles = {record["title"] for record in own.values()}
    times = {sections[record["section_id"]]["time"] for record in own.values() if record["status"] == "enrolled"}
    load = state.load_of(own.values(), sections)
    # a full section is waited for, one with seats is joined: which of the two it will be is not for the user to say
    offered = {
        key: section
        for key, section in sections.items()
        if section["program"] == student["program"] and state.is_full(section) == (intent == "waitlist")
    }
    found = fitting(
        rng, offered, lambda section: state.barrier(student, section, titles, times, load), wish, spread=True
    )
    if found is None:
        return None
    key, refused = found
    hint = f"{sections[key]['title']} on {sections[key]['time']}"
    return slots | {"section_id": key, "mode": rng.choice(state.MODES)}, refused, {"section_id": hint}


def _enrolment_goal(
    rng: random.Random,
    intent: str,
    slots: dict[str, Any],
    own: Mapping[str, Record],
    sections: Mapping[str, Record],
    wish: str,
    used: Mapping[str, Any],
) -> Drawn | None:
    load = state.load_of(own.values(), sections)

    def concerned(record: Record) -> bool:
        week, enrolled = sections[record["section_id"]]["week"], record["status"] == "enrolled"
        match intent:
            case "unlist":
                return not enrolled
            case "drop":
                return enrolled and week <= state.DROP_UNTIL
            case "withdraw":
                return enrolled and week > state.DROP_UNTIL
        return True

    def reason(record: Record) -> str:
        section = sections[record["section_id"]]
        match intent:
            case "unlist":
                return ""
            case "grading":
                return state.fixed_basis(section, record)
        return state.staying(section, load)

    free = {key: record for key, record in own.items() if key != used.get("enrolment_id") and concerned(record)}
    found = fitting(rng, free, reason, wish)
    if found is None:
        return None
    key, refused = found
    slot = "basis" if intent == "grading" else "reason"
    value = other_value(rng, slot, own[key].get(slot))
    return slots | {"enrolment_id": key, slot: value}, refused, {"enrolment_id": f"the one in {own[key]['title']}"}


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    return other(rng, slot, value, OPTIONS, state.NAMES, state.HOST)
