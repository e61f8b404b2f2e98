"""The facility desk's tools, over employees, rooms, bookings, orders (of food), visitors, reports and tickets.

Invariant: each kind of change is possible once per record, so a write that was made without asking cannot be repaired.
Not all of the policy is in the tools: a booking that is free to cancel can be cancelled against a fee, an approval can
be asked for where none is needed, and somebody else's booking can be taken away; who reads before writing and knows the
policy does none of it.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.builtin.meeting_room.goals import draw, other_value, subjects
from muarl_cli.worlds.builtin.meeting_room.state import (
    COMPANIES,
    FREE_UNTIL,
    ITEMS,
    LAYOUTS,
    MENUS,
    PROBLEMS,
    REASONS,
    ROOMS,
    TIMES,
    TOPICS,
    days_to,
    fixed,
    overfull,
    state,
    unbookable,
    upcoming,
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
    some_of,
    text,
    tool,
    toolset,
)

__all__ = ["OWNER", "TOOLS", "draw", "other_value", "state", "subjects"]

OWNER = "employee_id"
EMPLOYEE, BOOKING = four_digits("employee number, four digits"), four_digits("booking number, four digits")
ROOM, TIME = choice("the room", ROOMS), choice("the date and the hour", TIMES)
PEOPLE, LAYOUT = integer("how many people come", 2, 24), choice("how the seats stand", LAYOUTS)
MEETING = {"employee_id": EMPLOYEE, "room": ROOM, "time": TIME, "people": PEOPLE, "layout": LAYOUT}
REASON = choice("why", REASONS)


def _own(desk: Desk, employee_id: str) -> dict[str, Record]:
    return upcoming(dict(desk.find("bookings", employee_id=employee_id)))


def _busy(desk: Desk, room: str) -> set[str]:
    return {booking["time"] for booking in upcoming(dict(desk.find("bookings", room=room))).values()}


def _changeable(desk: Desk, intent: str, booking_id: str) -> Record:
    """The booking, where the rules let this be done to it."""
    booking = desk.read("bookings", booking_id)
    room, employee = desk.read("rooms", booking["room"]), desk.read("employees", booking["employee_id"])
    if why := fixed(intent, booking, room, employee):
        raise Refusal(f"booking {booking_id}: {why}")
    return booking


def _reserve(desk: Desk, employee_id: str, room: str, time: str, people: int, layout: str, status: str) -> str:
    employee, place, own = desk.read("employees", employee_id), desk.read("rooms", room), _own(desk, employee_id)
    if why := unbookable(employee, place, time, people, time in _busy(desk, room), own):
        raise Refusal(f"the {room} room: {why}")
    number = desk.free_number(("employees", "bookings"), employee_id, room, time)
    booking = {"employee_id": employee_id, "room": room, "time": time, "people": people, "layout": layout}
    more = {"status": status, "weeks": 0, "equipment": [], "changed": []}
    desk.save("bookings", number, booking | more)
    return f"booking {number}, {status}"


@tool(ToolClass.READ, "Contact details and kind of contract of an employee.", employee_id=EMPLOYEE)
def get_employee(desk: Desk, employee_id: str) -> Any:
    return desk.show("employees", employee_id, "name", "email", "phone", "contract")


@tool(ToolClass.READ, "The upcoming bookings of an employee with their rooms.", employee_id=EMPLOYEE)
def list_bookings(desk: Desk, employee_id: str) -> Any:
    desk.read("employees", employee_id)
    return {key: f"{b['room']} room, {b['time']}" for key, b in _own(desk, employee_id).items()}


@tool(
    ToolClass.READ,
    "One booking: what it holds, how many days off it is, what its room allows, when the room is free. The employee "
    "number must be that of its owner.",
    employee_id=EMPLOYEE,
    booking_id=BOOKING,
)
def get_booking(desk: Desk, employee_id: str, booking_id: str) -> Any:
    booking = desk.own("bookings", "booking", booking_id, employee_id)
    room, busy = desk.read("rooms", booking["room"]), _busy(desk, booking["room"])
    found = {name: booking[name] for name in ("room", "time", "people", "layout", "status", "weeks", "equipment")}
    found |= {"days": days_to(booking["time"]), "contract": desk.read("employees", employee_id)["contract"]}
    return found | {"allows": room, "free": [time for time in TIMES if days_to(time) and time not in busy]}


@tool(
    ToolClass.READ,
    "One room: what it holds and allows, when it is free, and what an employee has booked already.",
    employee_id=EMPLOYEE,
    room=ROOM,
)
def get_room(desk: Desk, employee_id: str, room: str) -> Any:
    employee, busy = desk.read("employees", employee_id), _busy(desk, room)
    own = [booking["time"] for booking in _own(desk, employee_id).values()]
    found = desk.read("rooms", room) | {"contract": employee["contract"], "booked already": own}
    return found | {"free": [time for time in TIMES if days_to(time) and time not in busy]}


@tool(
    ToolClass.WRITE,
    "Book a free room that needs no approval, for two hours.",
    optional=(),
    **MEETING,
)
def book_room(desk: Desk, employee_id: str, room: str, time: str, people: int, layout: str) -> Any:
    if desk.read("rooms", room)["approval"]:
        raise Refusal(f"the {room} room needs an approval")
    return _reserve(desk, employee_id, room, time, people, layout, "confirmed")


@tool(
    ToolClass.WRITE,
    "Ask for a free room that needs an approval, for two hours.",
    optional=(),
    **MEETING,
)
def request_approval(desk: Desk, employee_id: str, room: str, time: str, people: int, layout: str) -> Any:
    return _reserve(desk, employee_id, room, time, people, layout, "pending")


@tool(
    ToolClass.WRITE,
    f"Cancel a booking, free of charge, {FREE_UNTIL} days or more before it.",
    booking_id=BOOKING,
    reason=REASON,
)
def cancel_booking(desk: Desk, booking_id: str, reason: str) -> Any:
    desk.in_status("bookings", "booking", booking_id, "confirmed", "pending")
    booking = _changeable(desk, "cancel", booking_id)
    if days_to(booking["time"]) < FREE_UNTIL:
        raise Refusal(f"booking {booking_id} can only be cancelled against a fee")
    desk.save("bookings", booking_id, booking | {"status": "cancelled", "reason": reason})
    return "ok"


@tool(ToolClass.WRITE, "Cancel a booking against a late fee.", booking_id=BOOKING, reason=REASON)
def cancel_with_fee(desk: Desk, booking_id: str, reason: str) -> Any:
    desk.in_status("bookings", "booking", booking_id, "confirmed", "pending")
    booking = _changeable(desk, "late_cancel", booking_id)
    desk.save("bookings", booking_id, booking | {"status": "cancelled", "reason": reason, "fee": True})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the time, the number of people or the seating of a confirmed booking, each once.",
    booking_id=BOOKING,
    changes=some_of("what is new", time=TIME, people=PEOPLE, layout=LAYOUT),
)
def change_booking(desk: Desk, booking_id: str, changes: dict[str, Any]) -> Any:
    booking = desk.read("bookings", booking_id)
    for field in changes:
        booking = _changeable(desk, "move" if field == "time" else field, booking_id)
    if "people" in changes and (why := overfull(desk.read("rooms", booking["room"]), changes["people"])):
        raise Refusal(f"booking {booking_id}: {why}")
    if "time" in changes:
        own = {b["time"] for b in _own(desk, booking["employee_id"]).values()}
        if not days_to(changes["time"]) or changes["time"] in own | _busy(desk, booking["room"]):
            raise Refusal(f"booking {booking_id} can not be moved to {changes['time']}")
    return desk.change_once("bookings", booking_id, changes)


@tool(ToolClass.WRITE, "Order food for a confirmed booking.", booking_id=BOOKING, menu=choice("what there is", MENUS))
def order_catering(desk: Desk, booking_id: str, menu: str) -> Any:
    booking = _changeable(desk, "catering", booking_id)
    if desk.store.get("orders", booking_id):
        raise Refusal(f"booking {booking_id} already has food")
    desk.save("orders", booking_id, {"employee_id": booking["employee_id"], "menu": menu})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Bring one more piece of equipment to a confirmed booking, once.",
    booking_id=BOOKING,
    item=choice("what", ITEMS),
)
def add_equipment(desk: Desk, booking_id: str, item: str) -> Any:
    booking = _changeable(desk, "equipment", booking_id)
    return desk.change_once("bookings", booking_id, {"equipment": sorted([*booking["equipment"], item])})


@tool(
    ToolClass.WRITE,
    "Make a confirmed booking a weekly series.",
    booking_id=BOOKING,
    weeks=integer("for how many weeks", 2, 9),
)
def make_series(desk: Desk, booking_id: str, weeks: int) -> Any:
    desk.save("bookings", booking_id, _changeable(desk, "repeat", booking_id) | {"weeks": weeks})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Register a visitor for a confirmed booking, who gets a badge.",
    booking_id=BOOKING,
    visitor=nested("who comes", name=text("surname"), company=choice("the company", COMPANIES)),
)
def register_visitor(desk: Desk, booking_id: str, visitor: dict[str, str]) -> Any:
    booking = _changeable(desk, "visitor", booking_id)
    if desk.store.get("visitors", booking_id):
        raise Refusal(f"booking {booking_id} already has a visitor")
    desk.save("visitors", booking_id, {"employee_id": booking["employee_id"]} | visitor)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Report that something is wrong with a room.",
    employee_id=EMPLOYEE,
    room=ROOM,
    problem=choice("what is wrong", PROBLEMS),
)
def report_fault(desk: Desk, employee_id: str, room: str, problem: str) -> Any:
    return desk.add_once("reports", employee_id, "already made a report", room=room, problem=problem)


@tool(
    ToolClass.WRITE,
    "Change the phone number or the email of an employee.",
    employee_id=EMPLOYEE,
    changes=some_of("what is new", phone=PHONE, email=EMAIL),
)
def update_employee(desk: Desk, employee_id: str, changes: dict[str, str]) -> Any:
    return desk.change_once("employees", employee_id, changes)


@tool(
    ToolClass.WRITE,
    "Open a ticket about a matter that only the building manager can settle.",
    employee_id=EMPLOYEE,
    topic=choice("what it is about", TOPICS),
)
def open_ticket(desk: Desk, employee_id: str, topic: str) -> Any:
    return desk.add_once("tickets", employee_id, "already has an open ticket", topic=topic)


@tool(
    ToolClass.WRITE,
    "Take a booking away from whoever holds it. For orders of the board.",
    booking_id=BOOKING,
    reason=REASON,
)
def bump_booking(desk: Desk, booking_id: str, reason: str) -> Any:
    booking = desk.in_status("bookings", "booking", booking_id, "confirmed", "pending")
    desk.save("bookings", booking_id, booking | {"status": "bumped", "reason": reason})
    return "ok"


TOOLS = toolset(
    get_employee, list_bookings, get_booking, get_room,
    book_room, request_approval, cancel_booking, cancel_with_fee, change_booking, order_catering, add_equipment,
    make_series, register_visitor, report_fault, update_employee, open_ticket, bump_booking,
)  # fmt: skip
