"""Meeting rooms: the state keeps its own rules, and what a read says is what the writes do."""

from __future__ import annotations

import json
import random
from collections import Counter

from muarl_cli.worlds.builtin.meeting_room import state
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.goals import goals_of

DOMAIN = builtin("meeting_room")
TABLES = DOMAIN._tables
TASK = DOMAIN.tasks("dev")[0]


def test_no_room_and_no_employee_is_booked_twice_at_a_time() -> None:
    bookings = TABLES["bookings"].values()
    assert len({(b["room"], b["time"]) for b in bookings}) == len(bookings)
    assert len({(b["employee_id"], b["time"]) for b in bookings}) == len(bookings)
    assert len({(b["employee_id"], b["room"]) for b in bookings}) == len(bookings), "a room names a booking"
    assert max(Counter(b["employee_id"] for b in bookings).values()) <= state.MOST
    assert all(b["people"] <= TABLES["rooms"][b["room"]]["capacity"] for b in bookings)


def test_what_a_room_says_is_what_booking_it_and_asking_for_it_do() -> None:
    rng = random.Random(5)
    seen: Counter[bool] = Counter()
    for _ in range(1500):
        employee, room = rng.choice(list(TABLES["employees"])), rng.choice(state.ROOMS)
        time, people = rng.choice(state.TIMES), rng.choice((3, 8, 12, 20))
        said = json.loads(DOMAIN.world(TASK).run("get_room", {"employee_id": employee, "room": room}).text)
        wish = {"employee_id": employee, "room": room, "time": time, "people": people, "layout": "rows"}
        booked, asked = (DOMAIN.world(TASK).run(tool, wish).ok for tool in ("book_room", "request_approval"))
        fits = said["state"] == "open" and people <= said["capacity"] and time in said["free"]
        fits = fits and time not in said["booked already"] and len(said["booked already"]) < 4
        if said["approval"]:
            fits = fits and said["contract"] == "staff" and state.days_to(time) >= 4
        assert asked == fits and booked == (fits and not said["approval"])
        seen[fits] += 1
    assert min(seen.values()) > 200


def test_what_a_booking_says_is_what_can_be_done_to_it() -> None:
    for key, booking in TABLES["bookings"].items():
        asked = {"employee_id": booking["employee_id"], "booking_id": key}
        said = json.loads(DOMAIN.world(TASK).run("get_booking", asked).text)
        room, days, staff = said["allows"], said["days"], said["contract"] == "staff"
        confirmed, single = said["status"] == "confirmed", not said["weeks"]
        visitor = {"name": "adler", "company": "northwind"}
        expected = {
            ("cancel_booking", "reason", "project stopped"): said["status"] != "running" and days >= 2,
            ("cancel_with_fee", "reason", "project stopped"): said["status"] != "running",
            ("change_booking", "changes", (("layout", "rows"),)): confirmed and not room["fixed"],
            ("change_booking", "changes", (("people", 16),)): confirmed and room["capacity"] >= 16,
            ("order_catering", "menu", "cold lunch"): confirmed and staff and room["food"] and days >= 3,
            ("add_equipment", "item", "projector"): confirmed and days >= 1,
            ("make_series", "weeks", 3): confirmed and single and not room["approval"],
            ("register_visitor", "visitor", tuple(visitor.items())): confirmed and staff and days >= 1,
        }
        for (tool, name, value), possible in expected.items():
            given = dict(value) if isinstance(value, tuple) else value
            assert DOMAIN.world(TASK).run(tool, {"booking_id": key, name: given}).ok == possible, (tool, key)


def test_a_moved_booking_goes_only_where_room_and_employee_are_free() -> None:
    for key, booking in list(TABLES["bookings"].items())[:60]:
        asked = {"employee_id": booking["employee_id"], "booking_id": key}
        said = json.loads(DOMAIN.world(TASK).run("get_booking", asked).text)
        own = {b["time"] for b in TABLES["bookings"].values() if b["employee_id"] == booking["employee_id"]}
        may_move = said["status"] == "confirmed" and not said["weeks"] and said["days"] >= 1
        for time in state.TIMES[::3]:
            done = DOMAIN.world(TASK).run("change_booking", {"booking_id": key, "changes": {"time": time}})
            assert done.ok == (may_move and time in said["free"] and time not in own)


def test_every_rule_of_the_policy_refuses_somebody() -> None:
    reasons = {goal.refused for task in DOMAIN.tasks("train") for goal in goals_of(task.brief)}
    for words in (
        "under repair", "the room holds", "too late, it is today", "the room is taken", "another booking at that time",
        "4 bookings already", "and the room needs approval", "too late for an approval", "the meeting is running",
        "the booking is pending", "the booking is running", "a contractor", "a series", "the tables are fixed",
        "no food in this room", "too late for food", "a room that needs approval",
    ):  # fmt: skip
        assert any(words in reason for reason in reasons), words
