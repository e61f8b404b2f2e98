"""How an employee's goals are drawn from the facility desk's state.

Invariant: whether a goal can be served is decided by the rules of state.py on the initial state; goals of one task that
meet in a booking leave each other alone, and two of them never change what the other one's answer depends on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from muarl_cli.worlds.builtin.meeting_room import state
from muarl_cli.worlds.builtin.meeting_room.state import Tables
from muarl_cli.worlds.draws import Drawn, fitting, other
from muarl_cli.worlds.store import Record

FEW, MANY = (2, 3, 4, 5, 6, 7, 8), (12, 16, 20, 24)
OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "people": FEW,
    "layout": state.LAYOUTS,
    "reason": state.REASONS,
    "menu": state.MENUS,
    "item": state.ITEMS,
    "weeks": tuple(range(2, 10)),
    "room": state.ROOMS,
    "problem": state.PROBLEMS,
    "topic": state.TOPICS,
    "visitor": tuple({"name": name, "company": firm} for name in state.SURNAMES for firm in state.COMPANIES),
}
"""slots with few values; every room holds eight, so a change of mind about the number of people never overfills one"""
EMPLOYEE_SLOTS: Mapping[str, tuple[str, ...]] = {
    "fault": ("room", "problem"),
    "phone": ("phone",),
    "email": ("email",),
    "ticket": ("topic",),
    "handover": ("topic",),
}
"""intents that concern no booking, with what they need besides the employee"""
BOOKING_SLOTS: Mapping[str, str] = {
    "cancel": "reason", "late_cancel": "reason", "move": "time", "people": "people", "layout": "layout",
    "catering": "menu", "equipment": "item", "repeat": "weeks", "visitor": "visitor",
}  # fmt: skip
"""intents that concern a booking of one's own, with what they need besides it"""
BESIDE = {"people", "layout", "catering", "equipment", "visitor"}
"""what can be done to one booking in one task"""
TAKING = {"book", "approval", "move"}
"""only one of these in a task, where the first was not refused: it takes a room and a time"""


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the employees."""
    return list(tables["employees"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this employee: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal. None where this employee has
    nothing that fits.
    """
    if not used.get("refused") and {intent, used.get("intent")} <= TAKING:
        return None
    slots: dict[str, Any] = {"employee_id": subject}
    if intent in EMPLOYEE_SLOTS:
        if wish == "refused":
            return None
        return slots | {slot: other_value(rng, slot, None) for slot in EMPLOYEE_SLOTS[intent]}, "", {}
    own = {key: b for key, b in tables["bookings"].items() if b["employee_id"] == subject}
    if intent in ("book", "approval"):
        return _room_goal(rng, intent, slots, own, tables, wish)
    return _booking_goal(rng, intent, slots, own, tables, wish, used)


def _room_goal(
    rng: random.Random, intent: str, slots: dict[str, Any], own: Mapping[str, Record], tables: Tables, wish: str
) -> Drawn | None:
    employee = tables["employees"][slots["employee_id"]]
    taken = {(b["room"], b["time"]) for b in tables["bookings"].values()}
    # some rooms are booked, some asked for: which of the two it will be is not for the user to say
    rooms = [key for key, room in tables["rooms"].items() if room["approval"] == (intent == "approval")]
    wishes = {
        f"{room}, {time}": {"room": room, "time": time, "people": rng.choice((*FEW, *MANY))}
        for room, time in ((rng.choice(rooms), rng.choice(state.TIMES)) for _ in range(12))
    }

    def reason(wished: Record) -> str:
        room, place = tables["rooms"][wished["room"]], (wished["room"], wished["time"])
        return state.unbookable(employee, room, wished["time"], wished["people"], place in taken, own)

    found = fitting(rng, wishes, reason, wish, spread=True)
    if found is None:
        return None
    key, refused = found
    return slots | wishes[key] | {"layout": rng.choice(state.LAYOUTS)}, refused, {}


def _booking_goal(
    rng: random.Random,
    intent: str,
    slots: dict[str, Any],
    own: Mapping[str, Record],
    tables: Tables,
    wish: str,
    used: Mapping[str, Any],
) -> Drawn | None:
    before, times = used.get("booking_id"), {booking["time"] for booking in own.values()}
    if before and not {intent, used["intent"]} <= BESIDE:
        own = {key: booking for key, booking in own.items() if key != before}
    if intent in ("cancel", "late_cancel"):
        late = intent == "late_cancel"
        own = {key: b for key, b in own.items() if (state.days_to(b["time"]) < state.FREE_UNTIL) == late}
    employee, people = tables["employees"][slots["employee_id"]], rng.choice((*FEW, *MANY))

    def reason(booking: Record) -> str:
        room = tables["rooms"][booking["room"]]
        return state.fixed(intent, booking, room, employee) or (
            state.overfull(room, people) if intent == "people" else ""
        )

    found = fitting(rng, own, reason, wish, spread=True)
    if found is None:
        return None
    key, refused = found
    slot = BOOKING_SLOTS[intent]
    value = people if slot == "people" else _booking_value(rng, slot, own[key], times, tables)
    hint = f"the one in the {own[key]['room']} room"
    return slots | {"booking_id": key, slot: value}, refused, {"booking_id": hint}


def _booking_value(rng: random.Random, slot: str, booking: Record, times: set[str], tables: Tables) -> Any:
    """A value that is new to the booking; where it is a time, one at which the room is free and the employee, who meets
    at `times`, too."""
    if slot != "time":
        return other_value(rng, slot, booking.get(slot))
    busy = times | {b["time"] for b in tables["bookings"].values() if b["room"] == booking["room"]}
    return rng.choice([time for time in state.TIMES if state.days_to(time) and time not in busy])


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    return other(rng, slot, value, OPTIONS, state.NAMES, state.HOST)
