"""The recruiting desk's policy as conditions: why a request cannot be met, in the words that the agent reads.

Invariant: each function answers "" where the request can be met, decides from records alone and changes none. The tools
refuse by them and the task generator predicts by them, so no task has an answer that its world would contradict.
"""

from __future__ import annotations

from collections.abc import Iterable

from muarl_cli.worlds.builtin.job_application.state import (
    ACTIVE,
    DEGREES,
    FIRST_START,
    MOST_ACTIVE,
    TODAY,
    TOMORROW,
)
from muarl_cli.worlds.store import Record


def no_application(
    candidate: Record, opening: Record, statuses: Iterable[str], applied: bool, salary: int, wanted: str
) -> str:
    """Why the candidate cannot apply; `statuses` are those of their applications, `applied` says that one of them is
    for this opening. `wanted` is the opening's status: "open", or "on hold" for its reserve list."""
    if reason := _closed(opening, wanted):
        return reason
    if applied:
        return "the candidate has applied for it before"
    if not candidate["next_number"]:
        return "the candidate has applied for something today"
    if sum(status in ACTIVE for status in statuses) >= MOST_ACTIVE:
        return f"the candidate has {MOST_ACTIVE} active applications"
    if candidate["years"] < opening["years"]:
        return f"it takes {opening['years']} years of experience, and the candidate has {candidate['years']}"
    if DEGREES.index(candidate["degree"]) < DEGREES.index(opening["degree"]):
        return f"it takes a degree ({opening['degree']}), and the candidate has {candidate['degree']}"
    return f"{salary} is above the {opening['high']} that it pays" if salary > opening["high"] else ""


def no_referral(candidate: Record, opening: Record) -> str:
    """Why the candidate cannot refer somebody."""
    if reason := _closed(opening, "open"):
        return reason
    if not opening["referrals"]:
        return "it takes no referrals"
    return "the candidate has referred somebody this month" if candidate["referred"] else ""


def _closed(opening: Record, wanted: str) -> str:
    if opening["status"] != wanted:
        return f"the opening is {opening['status']}"
    return f"the deadline was {opening['deadline']}" if opening["deadline"] < TODAY else ""


def no_withdrawal(application: Record) -> str:
    """Why it cannot be withdrawn; an offer is answered instead."""
    return _unless(application, "submitted", "screening", "invited", "scheduled")


def no_interview(application: Record, when: str) -> str:
    """Why no interview can be booked at this time."""
    return _unless(application, "invited") or _too_soon(when)


def no_move(application: Record, when: str) -> str:
    """Why the interview cannot be moved to this time."""
    if reason := _unless(application, "scheduled") or _lacks(application, "moved"):
        return reason
    if application["moved"]:
        return "the interview was moved before"
    if _too_soon(application["when"]):
        return "the interview is tomorrow"
    return _too_soon(when)


def _too_soon(when: str) -> str:
    return f"{when} is tomorrow" if when.startswith(TOMORROW) else ""


def no_document(application: Record, document: str) -> str:
    """Why this document cannot be added."""
    if reason := _unless(application, "submitted", "screening") or _lacks(application, "documents"):
        return reason
    if document in application["documents"]:
        return f"the {document} is there"
    return "a document was added before" if application["completed"] else ""


def no_acceptance(application: Record, opening: Record, start: str) -> str:
    """Why the offer cannot be accepted with this first day."""
    if reason := no_answer(application):
        return reason
    if opening["check"] and application["check"] != "cleared":
        return f"it takes a cleared background check, and that is {application['check']}"
    return f"{start} is before {FIRST_START}" if start < FIRST_START else ""


def no_negotiation(application: Record, opening: Record, salary: int) -> str:
    """Why this salary cannot be asked for."""
    if reason := no_answer(application):
        return reason
    if application["negotiated"]:
        return "the offer was negotiated before"
    if salary <= application["offer"]:
        return f"{salary} is not above the offer of {application['offer']}"
    return f"{salary} is above the {opening['high']} that it pays" if salary > opening["high"] else ""


def no_answer(application: Record) -> str:
    """Why there is no offer that could be answered."""
    if reason := _unless(application, "offer") or _lacks(application, "until"):
        return reason
    return f"the offer ran until {application['until']}" if application["until"] < TODAY else ""


def no_check(application: Record, opening: Record) -> str:
    """Why no background check can be authorised."""
    if reason := _unless(application, "scheduled", "offer"):
        return reason
    if not opening["check"]:
        return "the opening takes no background check"
    return "" if application["check"] == "none" else f"the background check is {application['check']}"


def no_feedback(application: Record) -> str:
    """Why no feedback can be asked for."""
    if reason := _unless(application, "rejected") or _lacks(application, "explained"):
        return reason
    return "feedback was asked for before" if application["explained"] else ""


def no_alert(candidate: Record) -> str:
    """Why no alert can be set."""
    return "the candidate has an alert" if candidate["alert"] else ""


_BROUGHT = {"documents": "document", "moved": "interview", "until": "offer", "explained": "rejection"}
"""what an application has on file where it came to its status in the ordinary way, by a field that it then has"""


def _lacks(application: Record, field: str) -> str:
    """Why nothing can be done about what its status should have brought: that was set by hand."""
    return "" if field in application else f"there is no {_BROUGHT[field]} on file"


def _unless(application: Record, *statuses: str) -> str:
    return "" if application["status"] in statuses else f"the application is {application['status']}"
