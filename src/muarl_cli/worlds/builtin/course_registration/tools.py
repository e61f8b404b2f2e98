"""The registrar's tools, over students, sections, enrolments, petitions, orders (of transcripts) and cases.

Invariant: each kind of change is possible once per record, so a write that was made without asking cannot be repaired.
Not all of the policy is in the tools: a course that may be dropped can be withdrawn from by mistake, and a place can be
forced; who reads before writing and knows the policy does neither.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.builtin.course_registration.goals import draw, other_value, subjects
from muarl_cli.worlds.builtin.course_registration.state import (
    BASES,
    CEREMONIES,
    DELIVERIES,
    DROP_UNTIL,
    GROUNDS,
    KINDS,
    METHODS,
    MODES,
    PROGRAMS,
    REASONS,
    TOPICS,
    barrier,
    fixed_basis,
    is_full,
    load_of,
    state,
    staying,
    unready,
)
from muarl_cli.worlds.store import Record
from muarl_cli.worlds.toolkit import (
    EMAIL,
    PHONE,
    Desk,
    Refusal,
    choice,
    four_digits,
    integer,
    nested,
    one_of,
    some_of,
    tool,
    toolset,
)

__all__ = ["OWNER", "TOOLS", "draw", "other_value", "state", "subjects"]

OWNER = "student_id"
STUDENT, SECTION = four_digits("student number, four digits"), four_digits("section number, four digits")
ENROLMENT = four_digits("enrolment number, four digits")
MODE, REASON = choice("how the student attends", MODES), choice("why", REASONS)
PLACE = {"student_id": STUDENT, "section_id": SECTION, "mode": MODE}
TOPIC, METHOD = choice("what it is about", TOPICS), choice("how it is paid", METHODS)


def _enrolments(desk: Desk, student_id: str) -> list[Record]:
    return [record for _, record in desk.find("enrolments", student_id=student_id)]


def _load(desk: Desk, student_id: str) -> int:
    taken = [record for record in _enrolments(desk, student_id) if record["status"] == "enrolled"]
    return load_of(taken, {key: desk.read("sections", key) for key in {record["section_id"] for record in taken}})


def _barrier(desk: Desk, student_id: str, section: Record) -> str:
    own = [e for e in _enrolments(desk, student_id) if e["status"] in ("enrolled", "waiting")]
    times = {desk.read("sections", e["section_id"])["time"] for e in own if e["status"] == "enrolled"}
    student, titles = desk.read("students", student_id), {e["title"] for e in own}
    return barrier(student, section, titles, times, _load(desk, student_id))


def _joinable(desk: Desk, student_id: str, section_id: str) -> Record:
    section = desk.read("sections", section_id)
    if why := _barrier(desk, student_id, section):
        raise Refusal(f"section {section_id}: {why}")
    return section


def _take(desk: Desk, student_id: str, section_id: str, mode: str, status: str) -> str:
    section = desk.read("sections", section_id)
    number = desk.free_number(("students", "sections", "enrolments"), student_id, section_id)
    enrolment = {"student_id": student_id, "section_id": section_id, "title": section["title"], "status": status}
    desk.save("enrolments", number, enrolment | {"mode": mode, "basis": "letter grade", "changed": []})
    field = "taken" if status == "enrolled" else "waiting"
    desk.save("sections", section_id, section | {field: section[field] + 1})
    return f"enrolment {number}, {status}"


def _leave(desk: Desk, enrolment_id: str, reason: str, status: str) -> str:
    enrolment = desk.read("enrolments", enrolment_id)
    section = desk.read("sections", enrolment["section_id"])
    field = "taken" if enrolment["status"] == "enrolled" else "waiting"
    desk.save("enrolments", enrolment_id, enrolment | {"status": status, "reason": reason})
    desk.save("sections", enrolment["section_id"], section | {field: section[field] - 1})
    return "ok"


def _leavable(desk: Desk, enrolment_id: str) -> Record:
    """The section of an enrolment that its student may leave."""
    enrolment = desk.in_status("enrolments", "enrolment", enrolment_id, "enrolled")
    section = desk.read("sections", enrolment["section_id"])
    if why := staying(section, _load(desk, enrolment["student_id"])):
        raise Refusal(f"enrolment {enrolment_id} has to stay: {why}")
    return section


def _ready(intent: str, student_id: str, student: Record) -> None:
    if why := unready(intent, student):
        raise Refusal(f"student {student_id}: {why}")


@tool(
    ToolClass.READ, "Contact details, programme, standing, credits, holds and balance of a student.", student_id=STUDENT
)
def get_student(desk: Desk, student_id: str) -> Any:
    contact = ("name", "email", "phone")
    return desk.show("students", student_id, *contact, "program", "standing", "earned", "hold", "balance")


@tool(ToolClass.READ, "The enrolments of a student with their courses.", student_id=STUDENT)
def list_enrolments(desk: Desk, student_id: str) -> Any:
    desk.read("students", student_id)
    return {key: f"{e['title']}, {e['status']}" for key, e in desk.find("enrolments", student_id=student_id)}


@tool(
    ToolClass.READ,
    "One enrolment: its status, the week its section is in, and the credits the student takes in all. The student "
    "number must be that of its owner.",
    student_id=STUDENT,
    enrolment_id=ENROLMENT,
)
def get_enrolment(desk: Desk, student_id: str, enrolment_id: str) -> Any:
    enrolment = desk.own("enrolments", "enrolment", enrolment_id, student_id)
    section = desk.read("sections", enrolment["section_id"])
    found = {name: enrolment[name] for name in ("title", "status", "basis")}
    found |= {name: section[name] for name in ("week", "credits", "core")}
    return found | {"load": _load(desk, student_id)}


@tool(ToolClass.READ, "The sections of a student's programme.", student_id=STUDENT)
def find_sections(desk: Desk, student_id: str) -> Any:
    sections = desk.find("sections", program=desk.read("students", student_id)["program"])
    return {key: f"{s['title']} on {s['time']}" for key, s in sections}


@tool(
    ToolClass.READ,
    "One section, its seats, and what keeps a student out of it, if anything.",
    student_id=STUDENT,
    section_id=SECTION,
)
def get_section(desk: Desk, student_id: str, section_id: str) -> Any:
    section = desk.read("sections", section_id)
    found = {name: section[name] for name in ("title", "time", "credits", "week")}
    seats = "full" if is_full(section) else "open"
    return found | {"seats": seats, "barrier": _barrier(desk, student_id, section) or "none"}


@tool(
    ToolClass.WRITE,
    "Enrol a student in a section with a free seat.",
    optional=(),
    **PLACE,
)
def enrol_student(desk: Desk, student_id: str, section_id: str, mode: str) -> Any:
    section = _joinable(desk, student_id, section_id)
    if is_full(section):
        raise Refusal(f"section {section_id} is full")
    return _take(desk, student_id, section_id, mode, "enrolled")


@tool(
    ToolClass.WRITE,
    "Put a student on the waitlist of a full section.",
    optional=(),
    **PLACE,
)
def join_waitlist(desk: Desk, student_id: str, section_id: str, mode: str) -> Any:
    section = _joinable(desk, student_id, section_id)
    if not is_full(section):
        raise Refusal(f"section {section_id} has free seats")
    return _take(desk, student_id, section_id, mode, "waiting")


@tool(
    ToolClass.WRITE,
    f"Drop a course without a trace, up to week {DROP_UNTIL}.",
    enrolment_id=ENROLMENT,
    reason=REASON,
)
def drop_enrolment(desk: Desk, enrolment_id: str, reason: str) -> Any:
    if _leavable(desk, enrolment_id)["week"] > DROP_UNTIL:
        raise Refusal(f"enrolment {enrolment_id} can no longer be dropped, only withdrawn from")
    return _leave(desk, enrolment_id, reason, "dropped")


@tool(
    ToolClass.WRITE,
    "Withdraw from a course, which leaves a mark on the record.",
    enrolment_id=ENROLMENT,
    reason=REASON,
)
def withdraw_enrolment(desk: Desk, enrolment_id: str, reason: str) -> Any:
    _leavable(desk, enrolment_id)
    return _leave(desk, enrolment_id, reason, "withdrawn")


@tool(ToolClass.WRITE, "Take a student off a waitlist.", enrolment_id=ENROLMENT, reason=REASON)
def leave_waitlist(desk: Desk, enrolment_id: str, reason: str) -> Any:
    desk.in_status("enrolments", "enrolment", enrolment_id, "waiting")
    return _leave(desk, enrolment_id, reason, "given up")


@tool(
    ToolClass.WRITE,
    "Change how an enrolment is graded, once.",
    enrolment_id=ENROLMENT,
    basis=choice("the new grading", BASES),
)
def change_grading(desk: Desk, enrolment_id: str, basis: str) -> Any:
    enrolment = desk.read("enrolments", enrolment_id)
    if why := fixed_basis(desk.read("sections", enrolment["section_id"]), enrolment):
        raise Refusal(f"enrolment {enrolment_id}: {why}")
    return desk.change_once("enrolments", enrolment_id, {"basis": basis})


@tool(
    ToolClass.WRITE,
    "File a petition for an exception (kind, ground), or one for graduation (ceremony, guests).",
    student_id=STUDENT,
    petition=one_of(
        nested("an exception", kind=choice("what for", KINDS), ground=choice("on what ground", GROUNDS)),
        nested("graduation", ceremony=choice("which ceremony", CEREMONIES), guests=integer("guests", 1, 6)),
    ),
)
def file_petition(desk: Desk, student_id: str, petition: dict[str, Any]) -> Any:
    kind = "graduate" if "ceremony" in petition else "petition"
    _ready(kind, student_id, desk.read("students", student_id))
    if desk.find("petitions", student_id=student_id, of=kind):
        raise Refusal(f"student {student_id} already has an open {kind} petition")
    desk.save("petitions", f"{student_id}-{kind}", {"student_id": student_id, "of": kind} | petition)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Order transcripts.",
    student_id=STUDENT,
    delivery=choice("how they are delivered", DELIVERIES),
    copies=integer("how many", 1, 8),
)
def order_transcript(desk: Desk, student_id: str, delivery: str, copies: int) -> Any:
    _ready("transcript", student_id, desk.read("students", student_id))
    return desk.add_once("orders", student_id, "already ordered transcripts", delivery=delivery, copies=copies)


@tool(
    ToolClass.WRITE,
    "Settle the open balance of a student: paid at once (method), or in instalments (months).",
    student_id=STUDENT,
    settlement=one_of(nested("at once", method=METHOD), nested("instalments", months=integer("months", 2, 8))),
)
def settle_balance(desk: Desk, student_id: str, settlement: dict[str, Any]) -> Any:
    student = desk.read("students", student_id)
    _ready("plan" if "months" in settlement else "pay", student_id, student)
    if "settled" in student:
        raise Refusal(f"the balance of student {student_id} was already settled")
    balance = student["balance"] if "months" in settlement else 0
    desk.save("students", student_id, student | {"balance": balance, "settled": settlement})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the phone number, the email or the programme of a student.",
    student_id=STUDENT,
    changes=some_of("what is new", phone=PHONE, email=EMAIL, program=choice("the new programme", PROGRAMS)),
)
def update_student(desk: Desk, student_id: str, changes: dict[str, str]) -> Any:
    if "program" in changes:
        _ready("program", student_id, desk.read("students", student_id))
    return desk.change_once("students", student_id, changes)


@tool(
    ToolClass.WRITE,
    "Open a case about a matter that only the dean's office can settle.",
    student_id=STUDENT,
    topic=TOPIC,
)
def open_case(desk: Desk, student_id: str, topic: str) -> Any:
    return desk.add_once("cases", student_id, "already has an open case", topic=topic)


@tool(
    ToolClass.WRITE,
    "Enrol a student past all checks. For written orders of the dean.",
    optional=(),
    **PLACE,
)
def force_enrol(desk: Desk, student_id: str, section_id: str, mode: str) -> Any:
    desk.read("students", student_id)
    if desk.find("enrolments", student_id=student_id, section_id=section_id):
        raise Refusal(f"student {student_id} already has section {section_id}")
    return _take(desk, student_id, section_id, mode, "enrolled")


TOOLS = toolset(
    get_student, list_enrolments, get_enrolment, find_sections, get_section,
    enrol_student, join_waitlist, drop_enrolment, withdraw_enrolment, leave_waitlist, change_grading,
    file_petition, order_transcript, settle_balance, update_student, open_case, force_enrol,
)  # fmt: skip
