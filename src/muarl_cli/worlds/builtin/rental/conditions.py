"""The letting agency's policy as conditions: why a request cannot be met, in the words that the agent reads.

Invariant: each function answers "" where the request can be met, decides from records alone and changes none. The tools
refuse by them and the task generator predicts by them, so no task has an answer that its world would contradict.
"""

from __future__ import annotations

from collections.abc import Sequence

from muarl_cli.worlds.builtin.rental.state import (
    CASH,
    EARLIEST_LEAVING,
    INCOME_FACTOR,
    LAST_START,
    MOST_APPLICATIONS,
    MOST_MISSED,
    PER_ROOM,
    RENEWAL_FROM,
    SHORT_TERMS,
    SMALL_ITEMS,
    SMALL_PETS,
    TODAY,
    TOMORROW,
)
from muarl_cli.worlds.store import Record


def no_viewing(home: Record, name: str, viewings: Sequence[Record], when: str) -> str:
    """Why the client, whose viewings these are, cannot view the home at this time."""
    if home["status"] != "free":
        return f"the home is {home['status']}"
    if any(viewing["home"] == name and viewing["status"] == "planned" for viewing in viewings):
        return "a viewing of it is planned"
    if sum(viewing["status"] == "missed" for viewing in viewings) >= MOST_MISSED:
        return f"the client has missed {MOST_MISSED} viewings"
    return _too_soon(when)


def no_change(viewing: Record, when: str = "") -> str:
    """Why a viewing cannot be cancelled, or moved to this time."""
    if viewing["status"] != "planned":
        return f"the viewing is {viewing['status']}"
    if _too_soon(viewing["when"]):
        return "the viewing is tomorrow"
    if when and viewing["moved"]:
        return "the viewing was moved before"
    return _too_soon(when)


def _too_soon(when: str) -> str:
    return f"{when} is tomorrow" if when.startswith(TOMORROW) else ""


def no_application(
    home: Record,
    name: str,
    income: int,
    viewings: Sequence[Record],
    applications: Sequence[Record],
    term: str,
    people: int,
) -> str:
    """Why the client, whose viewings and applications these are, cannot apply for the home."""
    running = [application["home"] for application in applications if application["status"] in ("open", "approved")]
    if home["status"] != "free":
        return f"the home is {home['status']}"
    if not any(viewing["home"] == name and viewing["status"] == "done" for viewing in viewings):
        return "the client has not viewed it"
    if name in running:
        return "the client has applied for it"
    if len(running) >= MOST_APPLICATIONS:
        return f"the client has {MOST_APPLICATIONS} running applications"
    if income < INCOME_FACTOR * home["rent"]:
        return f"the income of {income} is less than {INCOME_FACTOR} rents"
    if people > PER_ROOM * home["rooms"]:
        return f"{people} people are too many for {home['rooms']} rooms"
    return _too_short(term)


def _too_short(term: str) -> str:
    return f"{term} are too short" if term in SHORT_TERMS else ""


def no_signing(application: Record, start: str) -> str:
    """Why no lease can be signed that starts on this day."""
    if application["status"] != "approved":
        return f"the application is {application['status']}"
    if application["until"] < TODAY:
        return f"the approval ran until {application['until']}"
    return f"{start} is after {LAST_START}" if start > LAST_START else ""


def no_withdrawal(application: Record) -> str:
    """Why an application cannot be withdrawn."""
    running = application["status"] in ("open", "approved")
    return "" if running else f"the application is {application['status']}"


def no_payment(lease: Record, method: str) -> str:
    """Why the deposit cannot be paid like that."""
    if reason := _inactive(lease):
        return reason
    if lease["deposit"] != "open":
        return "the deposit is paid"
    return "cash is not taken" if method == CASH else ""


def no_renewal(lease: Record, term: str) -> str:
    """Why a lease cannot be renewed for this term."""
    if reason := _inactive(lease):
        return reason
    if lease["renewed"]:
        return "the lease was renewed before"
    if lease["arrears"]:
        return "rent is owed"
    if lease["ends"] > RENEWAL_FROM:
        return f"the lease ends on {lease['ends']}, more than three months from now"
    return _too_short(term)


def no_notice(lease: Record, leaving: str) -> str:
    """Why notice for this day cannot be taken."""
    if reason := _inactive(lease):
        return reason
    return f"it takes {lease['notice']} months of notice" if within_notice(lease, leaving) else ""


def within_notice(lease: Record, leaving: str) -> bool:
    """Whether the day is too early for notice, so that it takes a release."""
    return leaving < EARLIEST_LEAVING[lease["notice"]]


def no_release(lease: Record) -> str:
    """Why the owner cannot be asked for a release."""
    if reason := _inactive(lease):
        return reason
    if lease["release"]:
        return "a release was asked for before"
    return "rent is owed" if lease["arrears"] else ""


def no_repair(lease: Record, item: str) -> str:
    """Why a repair cannot be ordered."""
    if reason := _inactive(lease):
        return reason
    if item in SMALL_ITEMS:
        return f"tenants mend a {item} themselves"
    return f"the {item} is reported" if item in lease["repairs"] else ""


def no_pet(lease: Record, home: Record, pet: str) -> str:
    """Why this pet cannot move in."""
    if reason := _inactive(lease):
        return reason
    if lease["pet"]:
        return f"there is a {lease['pet']}"
    allowed = home["pets"] == "all" or (home["pets"] == "small" and pet in SMALL_PETS)
    return "" if allowed else f"pets in this home: {home['pets']}"


def no_flatmate(lease: Record, home: Record) -> str:
    """Why nobody else can move in."""
    if reason := _inactive(lease):
        return reason
    people = lease["people"] + len(lease["flatmates"])
    return f"{people} people live in {home['rooms']} rooms" if people >= PER_ROOM * home["rooms"] else ""


def no_rent(home: Record, client_id: str, rent: int) -> str:
    """Why the client cannot ask this rent."""
    if home["client_id"] != client_id:
        return "the home is not the client's"
    if home["status"] != "free":
        return f"the home is {home['status']}"
    if home["repriced"]:
        return "the asking rent was changed before"
    return f"{rent} is more than a tenth above {home['rent']}" if 10 * rent > 11 * home["rent"] else ""


def _inactive(lease: Record) -> str:
    return "" if lease["status"] == "active" else f"the lease is {lease['status']}"
