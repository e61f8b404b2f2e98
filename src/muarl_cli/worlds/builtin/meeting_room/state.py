"""The facility desk's initial state: employees, rooms and bookings, and the rules they stand under.

Invariant: each rule is one function of records, which the tools and the goals both ask, so what a user is refused in a
task is what a tool refuses. No room is booked twice at a time and nobody sits in two rooms, so that every refusal can
be seen by reading.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from muarl_cli.worlds.draws import person
from muarl_cli.worlds.store import Record

HOST = "office.org"
NAMES = ("abel", "bess", "cora", "dean", "ella", "gwen", "hank", "ines", "jude", "kira", "liam", "mona", "nils", "opal")
ROOMS = (
    "acacia", "alder", "aspen", "birch", "cedar", "cypress", "ebony", "fir", "ginkgo", "hazel", "juniper", "larch",
    "laurel", "linden", "magnolia", "maple", "oak", "olive", "poplar", "rowan", "sequoia", "spruce", "walnut", "willow",
)  # fmt: skip
DATES = {"may 21": 0, "may 22": 1, "may 25": 4, "may 26": 5, "may 27": 6, "may 28": 7, "may 29": 8}
"""the working days that can be booked, and how many days off they are: today is may 21"""
HOURS = ("8am", "10am", "1pm", "3pm")
"""a booking is for two hours from one of these"""
TIMES = tuple(f"{date} at {hour}" for date in DATES for hour in HOURS)
LAYOUTS = ("rows", "circle", "banquet", "horseshoe")
REASONS = ("guest is ill", "other room found", "meeting moved online", "project stopped")
MENUS = ("coffee and cake", "cold lunch", "hot lunch", "fruit basket")
ITEMS = ("projector", "whiteboard", "loudspeaker", "web camera", "microphone")
COMPANIES = ("northwind", "bluestone", "redwater", "greenfield", "silverline")
SURNAMES = ("adler", "brandt", "costa", "duval", "evans", "fonda", "grant", "hoffman", "ivanov", "jansen")
PROBLEMS = ("broken light", "cold heating", "dead screen", "stuck door", "missing chairs")
TOPICS = ("a lost badge", "a double invoice", "a noisy neighbour", "building access", "a stolen laptop")

FREE_UNTIL, CATER_UNTIL, APPROVE_UNTIL = 2, 3, 4
"""days before a meeting: up to which a cancellation is free, food can be ordered, an approval can be asked for"""
MOST = 4
"""upcoming bookings that an employee may have"""

Tables = dict[str, dict[str, Record]]


def state(seed: int) -> Tables:
    """220 employees, 24 rooms, some 400 bookings; the same seed gives the same state."""
    rng = random.Random(f"meeting_room/{seed}")
    numbers = (str(n) for n in rng.sample(range(1000, 10000), 2000))
    rooms = {room: _room(rng) for room in ROOMS}
    employees = {
        next(numbers): person(rng, NAMES, HOST)
        | {"contract": rng.choices(("staff", "contractor"), (5, 1))[0], "changed": []}
        for _ in range(220)
    }
    held: dict[str, list[tuple[str, str]]] = {key: [] for key in employees}
    bookings: dict[str, Record] = {}
    for room, time in rng.sample([(room, time) for room in ROOMS for time in TIMES], 420):
        # bookings of one employee differ in room and time, so that a room names one of them
        takers = [
            key for key, own in held.items() if len(own) < MOST and not any(room == r or time == t for r, t in own)
        ]
        employee_id = rng.choice(takers)
        held[employee_id].append((room, time))
        late, approval = days_to(time) == 0 and time.endswith(HOURS[0]), rooms[room]["approval"]
        status = "running" if late else "pending" if approval and rng.random() < 0.5 else "confirmed"
        bookings[next(numbers)] = {
            "employee_id": employee_id,
            "room": room,
            "time": time,
            "people": rng.randrange(2, rooms[room]["capacity"] + 1),
            "layout": rng.choice(LAYOUTS),
            "status": status,
            "weeks": rng.choice((0, 0, 0, 4)),
            "equipment": rng.sample(ITEMS, rng.randrange(3)),
            "changed": [],
        }
    return {
        "employees": employees, "rooms": rooms, "bookings": bookings, "orders": {}, "visitors": {}, "reports": {},
        "tickets": {},
    }  # fmt: skip


def _room(rng: random.Random) -> Record:
    capacity = rng.choice((8, 8, 10, 12, 16, 20))
    return {
        "capacity": capacity,
        "approval": rng.random() < 0.35,
        "food": rng.random() < 0.6,
        "fixed": rng.random() < 0.3,
        "state": rng.choices(("open", "under repair"), (7, 1))[0],
    }


def days_to(time: str) -> int:
    return DATES[time.partition(" at ")[0]]


def upcoming(bookings: Mapping[str, Record]) -> dict[str, Record]:
    """Those that hold a room."""
    return {key: b for key, b in bookings.items() if b["status"] in ("confirmed", "pending", "running")}


def overfull(room: Mapping[str, Any], people: int) -> str:
    """Why so many do not go into a room, "" where they do."""
    return f"the room holds {room['capacity']}" if people > room["capacity"] else ""


def unbookable(
    employee: Mapping[str, Any], room: Mapping[str, Any], time: str, people: int, taken: bool, own: Mapping[str, Record]
) -> str:
    """Why an employee can neither book a room nor ask for it, "" where nothing stands in the way.

    `taken`: somebody has the room at that time; `own` are the employee's upcoming bookings.
    """
    if room["state"] != "open":
        return f"the room is {room['state']}"
    if why := overfull(room, people):
        return why
    if not days_to(time):
        return "too late, it is today"
    if taken:
        return "the room is taken"
    if any(booking["time"] == time for booking in own.values()):
        return "another booking at that time"
    if len(own) >= MOST:
        return f"{MOST} bookings already"
    if room["approval"] and employee["contract"] == "contractor":
        return "a contractor, and the room needs approval"
    return "too late for an approval" if room["approval"] and days_to(time) < APPROVE_UNTIL else ""


def fixed(intent: str, booking: Mapping[str, Any], room: Mapping[str, Any], employee: Mapping[str, Any]) -> str:
    """Why this cannot be done to a booking, "" where it can."""
    if intent in ("cancel", "late_cancel"):
        return "the meeting is running" if booking["status"] == "running" else ""
    if booking["status"] != "confirmed":
        return f"the booking is {booking['status']}"
    days = days_to(booking["time"])
    if intent in ("catering", "visitor") and employee["contract"] == "contractor":
        return "a contractor"
    match intent:
        case "move" if booking["weeks"]:
            return "a series"
        case "layout" if room["fixed"]:
            return "the tables are fixed"
        case "catering" if not room["food"]:
            return "no food in this room"
        case "catering" if days < CATER_UNTIL:
            return "too late for food"
        case "move" | "equipment" | "visitor" if not days:
            return "too late, it is today"
        case "repeat" if booking["weeks"]:
            return "a series already"
        case "repeat" if room["approval"]:
            return "a room that needs approval"
    return ""
