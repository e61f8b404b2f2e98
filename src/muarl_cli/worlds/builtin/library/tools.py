"""The library's tools, over members, books, loans, holds (reservations), requests, registrations and notes.

Invariant: each kind of change is possible once per record, so a write that was made without asking cannot be repaired.
The state they work on is in state.py, the goals drawn from it in goals.py; a scenario takes all of it from here.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.builtin.library.goals import draw, other_value, subjects
from muarl_cli.worlds.builtin.library.state import (
    BRANCHES,
    EVENTS,
    FORMATS,
    METHODS,
    PARTNERS,
    REASONS,
    SETTLEMENTS,
    TIERS,
    TOPICS,
    book_status,
    standing,
    state,
)
from muarl_cli.worlds.toolkit import (
    EMAIL,
    PHONE,
    Desk,
    Refusal,
    change_once,
    choice,
    four_digits,
    integer,
    nested,
    one_of,
    some_of,
    text,
    tool,
    toolset,
)

__all__ = ["OWNER", "TOOLS", "draw", "other_value", "state", "subjects"]

OWNER = "member_id"
NUMBERED = ("members", "loans", "holds")
MEMBER, LOAN = four_digits("member number, four digits"), four_digits("loan number, four digits")
HOLD, TITLE = four_digits("reservation number, four digits"), text("title of the book")
BRANCH, WEEKS = choice("branch of the library", BRANCHES), integer("weeks", 1, 6)


def _statuses(desk: Desk, member_id: str) -> list[str]:
    return [loan["status"] for _, loan in desk.find("loans", member_id=member_id)]


def _holds_title(desk: Desk, member_id: str, title: str) -> bool:
    loans = desk.find("loans", member_id=member_id, title=title)
    holds = desk.find("holds", member_id=member_id, title=title)
    has = any(loan["status"] in ("open", "overdue") for _, loan in loans)
    return has or any(hold["status"] != "cancelled" for _, hold in holds)


def _shift(desk: Desk, title: str, free: int = 0, waiting: int = 0) -> None:
    book = desk.read("books", title)
    desk.save("books", title, book | {"free": book["free"] + free, "waiting": book["waiting"] + waiting})


@tool(ToolClass.READ, "Contact details, membership and open fine (euros) of a member.", member_id=MEMBER)
def get_member(desk: Desk, member_id: str) -> Any:
    return desk.show("members", member_id, "name", "email", "phone", "tier", "fine")


@tool(ToolClass.READ, "The loans and reservations of a member, with their titles.", member_id=MEMBER)
def list_account(desk: Desk, member_id: str) -> Any:
    desk.read("members", member_id)
    loans = {key: f"loan {loan['title']}" for key, loan in desk.find("loans", member_id=member_id)}
    return loans | {key: f"reservation {hold['title']}" for key, hold in desk.find("holds", member_id=member_id)}


@tool(ToolClass.READ, "One loan. The member number must be that of its holder.", member_id=MEMBER, loan_id=LOAN)
def get_loan(desk: Desk, member_id: str, loan_id: str) -> Any:
    loan = desk.own("loans", "loan", loan_id, member_id)
    waiting = desk.read("books", loan["title"])["waiting"]
    return {"title": loan["title"], "status": loan["status"], "renewed": loan["renewed"], "others waiting": waiting}


@tool(ToolClass.READ, "One reservation. The member number must be that of its holder.", member_id=MEMBER, hold_id=HOLD)
def get_reservation(desk: Desk, member_id: str, hold_id: str) -> Any:
    hold = desk.own("holds", "reservation", hold_id, member_id)
    return {"title": hold["title"], "status": hold["status"], "branch": hold["branch"]}


@tool(ToolClass.READ, "Whether a book is there, and whether a member may borrow.", member_id=MEMBER, title=TITLE)
def get_book(desk: Desk, member_id: str, title: str) -> Any:
    member = desk.read("members", member_id)
    return {"book": book_status(desk.read("books", title)), "member": standing(member, _statuses(desk, member_id))}


@tool(ToolClass.WRITE, "Lend a free book to a member in good standing.", member_id=MEMBER, title=TITLE, weeks=WEEKS)
def borrow_book(desk: Desk, member_id: str, title: str, weeks: int) -> Any:
    member, book = desk.read("members", member_id), desk.read("books", title)
    if book_status(book) != "free":
        raise Refusal(f"{title} is {book_status(book)}")
    if (found := standing(member, _statuses(desk, member_id))) != "in good standing":
        raise Refusal(f"member {member_id} {found}")
    if _holds_title(desk, member_id, title):
        raise Refusal(f"member {member_id} already has {title} or waits for it")
    number = desk.free_number(NUMBERED, member_id, title)
    loan = {"member_id": member_id, "title": title, "status": "open", "renewed": False, "weeks": weeks}
    desk.save("loans", number, loan)
    _shift(desk, title, free=-1)
    return f"loan {number}"


@tool(ToolClass.WRITE, "Reserve a book that is not free.", member_id=MEMBER, title=TITLE, branch=BRANCH)
def reserve_book(desk: Desk, member_id: str, title: str, branch: str) -> Any:
    desk.read("members", member_id)
    if book_status(desk.read("books", title)) == "free":
        raise Refusal(f"{title} is free and can be borrowed")
    if _holds_title(desk, member_id, title):
        raise Refusal(f"member {member_id} already has {title} or waits for it")
    number = desk.free_number(NUMBERED, member_id, title)
    hold = {"member_id": member_id, "title": title, "status": "waiting", "branch": branch, "moved": False}
    desk.save("holds", number, hold)
    _shift(desk, title, waiting=1)
    return f"reservation {number}"


@tool(ToolClass.WRITE, "Take back a loan that is open or overdue.", loan_id=LOAN, branch=BRANCH)
def return_loan(desk: Desk, loan_id: str, branch: str) -> Any:
    loan = desk.in_status("loans", "loan", loan_id, "open", "overdue")
    desk.save("loans", loan_id, loan | {"status": "returned", "branch": branch})
    _shift(desk, loan["title"], free=1)
    return "ok"


@tool(ToolClass.WRITE, "Renew an open loan, once, where nobody waits for the book.", loan_id=LOAN, weeks=WEEKS)
def renew_loan(desk: Desk, loan_id: str, weeks: int) -> Any:
    loan = desk.in_status("loans", "loan", loan_id, "open")
    if loan["renewed"]:
        raise Refusal(f"loan {loan_id} was already renewed once")
    if desk.read("books", loan["title"])["waiting"]:
        raise Refusal(f"others are waiting for {loan['title']}")
    desk.save("loans", loan_id, loan | {"renewed": True, "weeks": weeks})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Report a loan that is open or overdue as lost.",
    loan_id=LOAN,
    settle=choice("how the member makes up for it", SETTLEMENTS),
)
def report_lost(desk: Desk, loan_id: str, settle: str) -> Any:
    loan = desk.in_status("loans", "loan", loan_id, "open", "overdue")
    desk.save("loans", loan_id, loan | {"status": "lost", "settle": settle})
    return "ok"


@tool(ToolClass.WRITE, "Drop a waiting reservation.", hold_id=HOLD, reason=choice("why", REASONS))
def cancel_reservation(desk: Desk, hold_id: str, reason: str) -> Any:
    hold = desk.in_status("holds", "reservation", hold_id, "waiting")
    desk.save("holds", hold_id, hold | {"status": "cancelled", "reason": reason})
    _shift(desk, hold["title"], waiting=-1)
    return "ok"


@tool(ToolClass.WRITE, "Send a waiting reservation to another branch, once.", hold_id=HOLD, branch=BRANCH)
def change_pickup(desk: Desk, hold_id: str, branch: str) -> Any:
    hold = desk.in_status("holds", "reservation", hold_id, "waiting")
    if hold["moved"]:
        raise Refusal(f"reservation {hold_id} was already sent elsewhere once")
    desk.save("holds", hold_id, hold | {"branch": branch, "moved": True})
    return "ok"


@tool(ToolClass.WRITE, "Book the open fine of a member as paid.", member_id=MEMBER, method=choice("how", METHODS))
def pay_fine(desk: Desk, member_id: str, method: str) -> Any:
    member = desk.read("members", member_id)
    if not member["fine"]:
        raise Refusal(f"member {member_id} has no open fine")
    desk.save("members", member_id, member | {"fine": 0, "paid_by": method})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the phone number, the email or the membership of a member.",
    member_id=MEMBER,
    changes=some_of("what is new", phone=PHONE, email=EMAIL, tier=choice("the new membership", TIERS)),
)
def update_member(desk: Desk, member_id: str, changes: dict[str, str]) -> Any:
    member = desk.read("members", member_id)
    changed = change_once(member, f"member {member_id}", changes)
    if "tier" in changes and member["tier"] != "basic":
        raise Refusal(f"member {member_id} is {member['tier']}, and only basic members are upgraded")
    if "tier" in changes and member["fine"]:
        raise Refusal(f"member {member_id} has an open fine")
    desk.save("members", member_id, changed)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Ask for a book that the library does not hold: to be bought (format) or ordered from elsewhere (partner).",
    member_id=MEMBER,
    request=one_of(
        nested("buy it", title=TITLE, format=choice("the format", FORMATS)),
        nested("order it", title=TITLE, partner=choice("the library that has it", PARTNERS)),
    ),
)
def request_book(desk: Desk, member_id: str, request: dict[str, str]) -> Any:
    desk.read("members", member_id)
    if desk.store.get("books", request["title"]):
        raise Refusal(f"the library has {request['title']}")
    kind = "purchase" if "format" in request else "order"
    if desk.find("requests", member_id=member_id, kind=kind):
        raise Refusal(f"member {member_id} already has an open {kind} request")
    desk.save("requests", f"{member_id}-{kind}", {"member_id": member_id, "kind": kind} | request)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Book seats at an event.",
    member_id=MEMBER,
    event=choice("the event", EVENTS),
    seats=integer("how many seats", 1, 9),
)
def join_event(desk: Desk, member_id: str, event: str, seats: int) -> Any:
    desk.read("members", member_id)
    room = desk.read("events", event)
    if desk.store.get("registrations", f"{member_id} {event}"):
        raise Refusal(f"member {member_id} already has seats at the {event}")
    if room["seats"] < seats:
        raise Refusal(f"the {event} has {room['seats']} seats left")
    desk.save("registrations", f"{member_id} {event}", {"member_id": member_id, "event": event, "seats": seats})
    desk.save("events", event, room | {"seats": room["seats"] - seats})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Leave a note for the staff about a matter that only they can settle.",
    member_id=MEMBER,
    topic=choice("what it is about", TOPICS),
)
def leave_note(desk: Desk, member_id: str, topic: str) -> Any:
    return desk.add_once("notes", member_id, "already left a note", topic=topic)


TOOLS = toolset(
    get_member, list_account, get_loan, get_reservation, get_book,
    borrow_book, reserve_book, return_loan, renew_loan, report_lost, cancel_reservation, change_pickup,
    pay_fine, update_member, request_book, join_event, leave_note,
)  # fmt: skip
