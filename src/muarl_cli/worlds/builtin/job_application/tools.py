"""The recruiting desk's tools, over candidates, openings, applications, referrals and notes.

Invariant: each kind of change is possible once per record, so a write that was made without asking cannot be repaired.
The policy they refuse by is in conditions.py, the state in state.py, the goals drawn from it in goals.py; a scenario
takes all of it from here.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.builtin.job_application import conditions
from muarl_cli.worlds.builtin.job_application.goals import draw, other_value, subjects
from muarl_cli.worlds.builtin.job_application.state import (
    AGENCIES,
    CHANNELS,
    FIELDS,
    MODES,
    MORE_DOCUMENTS,
    REASONS,
    SITES,
    SOON,
    STATUSES,
    TIMES,
    TOPICS,
    USUAL_DOCUMENTS,
    state,
)
from muarl_cli.worlds.store import Record
from muarl_cli.worlds.toolkit import (
    EMAIL,
    PHONE,
    Desk,
    choice,
    four_digits,
    integer,
    nested,
    one_of,
    refuse,
    some_of,
    text,
    tool,
    toolset,
)

__all__ = ["OWNER", "TOOLS", "draw", "other_value", "state", "subjects"]

OWNER = "candidate_id"
CANDIDATE, APPLICATION = four_digits("candidate number, four digits"), four_digits("application number, four digits")
OPENING, SALARY = text("title of the opening"), integer("euros a year", 10000, 200000)
WHEN = choice("day and part of the day", (*TIMES, *SOON))
REASON, START = choice("why", REASONS), text("first day at work, YYYY-MM-DD", r"^2026-[01][0-9]-[0-3][0-9]$")


def _with_opening(desk: Desk, application_id: str) -> tuple[Record, Record]:
    application = desk.read("applications", application_id)
    return application, desk.read("openings", application["opening"])


def _applications(desk: Desk, candidate: Record) -> list[Record]:
    return [desk.read("applications", number) for number in candidate["applications"]]


@tool(ToolClass.READ, "Contact details, degree, experience and job alert of a candidate.", candidate_id=CANDIDATE)
def get_candidate(desk: Desk, candidate_id: str) -> Any:
    return desk.show("candidates", candidate_id, "name", "email", "phone", "degree", "years", "alert")


@tool(ToolClass.READ, "The applications of a candidate, with their openings.", candidate_id=CANDIDATE)
def list_applications(desk: Desk, candidate_id: str) -> Any:
    candidate = desk.read("candidates", candidate_id)
    return {number: desk.read("applications", number)["opening"] for number in candidate["applications"]}


@tool(
    ToolClass.READ,
    "One application. The candidate number must be that of its candidate.",
    candidate_id=CANDIDATE,
    application_id=APPLICATION,
)
def get_application(desk: Desk, candidate_id: str, application_id: str) -> Any:
    application = desk.own("applications", "application", application_id, candidate_id)
    del application["candidate_id"]
    opening = desk.read("openings", application["opening"])
    return application | {"takes a background check": opening["check"], "pays up to": opening["high"]}


@tool(ToolClass.READ, "One opening, and how a candidate stands to it.", candidate_id=CANDIDATE, opening=OPENING)
def get_opening(desk: Desk, candidate_id: str, opening: str) -> Any:
    candidate, found = desk.read("candidates", candidate_id), desk.read("openings", opening)
    own = _applications(desk, candidate)
    return {
        "status": found["status"],
        "deadline": found["deadline"],
        "takes": {"years": found["years"], "degree": found["degree"], "referrals": found["referrals"]},
        "pays up to": found["high"],
        "candidate": {
            "years": candidate["years"],
            "degree": candidate["degree"],
            "applied for it": any(application["opening"] == opening for application in own),
            "applied today": not candidate["next_number"],
            "active applications": sum(application["status"] in conditions.ACTIVE for application in own),
            "referred somebody this month": candidate["referred"],
        },
    }


@tool(
    ToolClass.WRITE,
    "Hand in an application for an open opening whose requirements the candidate meets.",
    candidate_id=CANDIDATE,
    opening=OPENING,
    salary=SALARY,
)
def submit_application(desk: Desk, candidate_id: str, opening: str, salary: int) -> Any:
    return _apply(desk, candidate_id, opening, salary, "open", "submitted")


@tool(
    ToolClass.WRITE,
    "Put a candidate who meets the requirements on the reserve list of an opening that is on hold.",
    candidate_id=CANDIDATE,
    opening=OPENING,
    salary=SALARY,
)
def join_reserve_list(desk: Desk, candidate_id: str, opening: str, salary: int) -> Any:
    return _apply(desk, candidate_id, opening, salary, "on hold", "reserve")


def _apply(desk: Desk, candidate_id: str, opening: str, salary: int, wanted: str, status: str) -> str:
    """A new application of this status, for an opening of the status wanted; its number."""
    candidate, found = desk.read("candidates", candidate_id), desk.read("openings", opening)
    own = _applications(desk, candidate)
    applied = any(application["opening"] == opening for application in own)
    refuse(conditions.no_application(candidate, found, [a["status"] for a in own], applied, salary, wanted))
    number = candidate["next_number"]
    candidate["applications"] = sorted([*candidate["applications"], number])
    desk.save("candidates", candidate_id, candidate | {"next_number": ""})
    new = {"candidate_id": candidate_id, "opening": opening, "status": status, "salary": salary, "check": "none"}
    desk.save("applications", number, new | {"documents": list(USUAL_DOCUMENTS[:1]), "completed": False})
    return f"application {number}"


@tool(
    ToolClass.WRITE,
    "Withdraw an application that has no answer yet.",
    application_id=APPLICATION,
    reason=REASON,
)
def withdraw_application(desk: Desk, application_id: str, reason: str) -> Any:
    application = desk.read("applications", application_id)
    refuse(conditions.no_withdrawal(application))
    desk.save("applications", application_id, application | {"status": "withdrawn", "reason": reason})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Book the interview of a candidate who is invited.",
    application_id=APPLICATION,
    interview=nested("time and form", when=WHEN, mode=choice("how it is held", MODES)),
)
def book_interview(desk: Desk, application_id: str, interview: dict[str, str]) -> Any:
    application = desk.read("applications", application_id)
    refuse(conditions.no_interview(application, interview["when"]))
    desk.save("applications", application_id, application | interview | {"status": "scheduled", "moved": False})
    return "ok"


@tool(ToolClass.WRITE, "Move a scheduled interview, once.", application_id=APPLICATION, when=WHEN)
def move_interview(desk: Desk, application_id: str, when: str) -> Any:
    application = desk.read("applications", application_id)
    refuse(conditions.no_move(application, when))
    desk.save("applications", application_id, application | {"when": when, "moved": True})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Add a document to an application that is submitted or in screening, once.",
    application_id=APPLICATION,
    document=choice("which document", (*USUAL_DOCUMENTS, *MORE_DOCUMENTS)),
)
def add_document(desk: Desk, application_id: str, document: str) -> Any:
    application = desk.read("applications", application_id)
    refuse(conditions.no_document(application, document))
    documents = [*application["documents"], document]
    desk.save("applications", application_id, application | {"documents": documents, "completed": True})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Answer an offer: accept it (start), turn it down (reason) or ask for more, once (salary).",
    application_id=APPLICATION,
    answer=one_of(
        nested("accept it", start=START),
        nested("turn it down", reason=REASON),
        nested("ask for more", salary=SALARY),
    ),
)
def answer_offer(desk: Desk, application_id: str, answer: dict[str, Any]) -> Any:
    application, opening = _with_opening(desk, application_id)
    if "start" in answer:
        refuse(conditions.no_acceptance(application, opening, answer["start"]))
        desk.save("applications", application_id, application | answer | {"status": "accepted"})
    elif "reason" in answer:
        refuse(conditions.no_answer(application))
        desk.save("applications", application_id, application | answer | {"status": "turned down"})
    else:
        refuse(conditions.no_negotiation(application, opening, answer["salary"]))
        desk.save("applications", application_id, application | {"offer": answer["salary"], "negotiated": True})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Authorise the background check of a candidate with a scheduled interview or an offer.",
    application_id=APPLICATION,
    agency=choice("who makes it", AGENCIES),
)
def authorise_check(desk: Desk, application_id: str, agency: str) -> Any:
    application, opening = _with_opening(desk, application_id)
    refuse(conditions.no_check(application, opening))
    desk.save("applications", application_id, application | {"check": "running", "agency": agency})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Ask the recruiters to explain a rejection, once.",
    application_id=APPLICATION,
    channel=choice("how it is sent", CHANNELS),
)
def request_feedback(desk: Desk, application_id: str, channel: str) -> Any:
    application = desk.read("applications", application_id)
    refuse(conditions.no_feedback(application))
    desk.save("applications", application_id, application | {"explained": True, "channel": channel})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Refer somebody for an open opening that takes referrals, once a month.",
    candidate_id=CANDIDATE,
    opening=OPENING,
    friend=EMAIL | {"description": "email of who is referred"},
)
def refer_friend(desk: Desk, candidate_id: str, opening: str, friend: str) -> Any:
    candidate = desk.read("candidates", candidate_id)
    refuse(conditions.no_referral(candidate, desk.read("openings", opening)))
    desk.save("candidates", candidate_id, candidate | {"referred": True})
    referral = {"candidate_id": candidate_id, "opening": opening, "friend": friend}
    desk.save("referrals", candidate_id, referral)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the phone number or the email of a candidate, each once, or set the one job alert.",
    candidate_id=CANDIDATE,
    changes=some_of(
        "what is new",
        phone=PHONE,
        email=EMAIL,
        alert=nested("the job alert", field=choice("line of work", FIELDS), site=choice("city", SITES)),
    ),
)
def update_candidate(desk: Desk, candidate_id: str, changes: dict[str, Any]) -> Any:
    if "alert" in changes:
        refuse(conditions.no_alert(desk.read("candidates", candidate_id)))
    return desk.change_once("candidates", candidate_id, changes)


@tool(
    ToolClass.WRITE,
    "Leave a note for the recruiters about a matter that only they can settle.",
    candidate_id=CANDIDATE,
    topic=choice("what it is about", TOPICS),
)
def leave_note(desk: Desk, candidate_id: str, topic: str) -> Any:
    return desk.add_once("notes", candidate_id, "has left a note", topic=topic)


@tool(
    ToolClass.WRITE,
    "Set the status of an application by hand. For recruiting managers at their own desk.",
    application_id=APPLICATION,
    status=choice("the new status", STATUSES),
)
def override_status(desk: Desk, application_id: str, status: str) -> Any:
    application = desk.read("applications", application_id)
    desk.save("applications", application_id, application | {"status": status})
    return "ok"


TOOLS = toolset(
    get_candidate, list_applications, get_application, get_opening,
    submit_application, join_reserve_list, withdraw_application, book_interview, move_interview, add_document,
    answer_offer, authorise_check, request_feedback, refer_friend, update_candidate, leave_note, override_status,
)  # fmt: skip
