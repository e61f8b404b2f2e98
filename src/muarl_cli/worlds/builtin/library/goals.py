"""How a member's goals are drawn from the library's state.

Invariant: whether a goal can be served is decided here by the same rules as the tools apply, on the initial state;
goals of one task never concern the same loan, reservation or title, so the first one cannot change the answer to the
second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from muarl_cli.worlds.builtin.library import state
from muarl_cli.worlds.builtin.library.state import Tables
from muarl_cli.worlds.draws import Drawn, fitting, other
from muarl_cli.worlds.store import Record

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "weeks": tuple(range(1, 7)),
    "seats": tuple(range(1, 10)),
    "branch": state.BRANCHES,
    "settle": state.SETTLEMENTS,
    "reason": state.REASONS,
    "method": state.METHODS,
    "format": state.FORMATS,
    "partner": state.PARTNERS,
    "tier": state.TIERS,
    "event": state.EVENTS,
    "topic": state.TOPICS,
    "title": tuple(f"{adjective} {noun}" for adjective in state.NEW_ADJECTIVES for noun in state.NOUNS),
}
"""slots with few values, but for phone and email"""
MEMBER_SLOTS: Mapping[str, tuple[str, ...]] = {
    "fine": ("method",),
    "upgrade": ("tier",),
    "phone": ("phone",),
    "email": ("email",),
    "purchase": ("title", "format"),
    "interloan": ("title", "partner"),
    "event": ("event", "seats"),
    "note": ("topic",),
    "handover": ("topic",),
}
"""intents that concern the member alone, with what they need besides"""


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the members."""
    return list(tables["members"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this member: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal. None where this member has
    nothing that fits.
    """
    slots: dict[str, Any] = {"member_id": subject}
    if intent in MEMBER_SLOTS:
        refused = _member_refusal(intent, tables["members"][subject])
        if bool(refused) != (wish == "refused"):
            return None
        return slots | {slot: other_value(rng, slot, used.get(slot)) for slot in MEMBER_SLOTS[intent]}, refused, {}
    if intent in ("borrow", "reserve"):
        return _book_goal(rng, intent, slots, tables, wish, used)
    table, key_name, words = ("holds", "hold_id", "reservation")
    if intent in ("return", "renew", "lost"):
        table, key_name, words = ("loans", "loan_id", "loan")
    reason: Callable[[Record], str] = lambda record: _record_refusal(intent, record, tables["books"])  # noqa: E731
    own = {k: r for k, r in tables[table].items() if r["member_id"] == subject and k != used.get(key_name)}
    found = fitting(rng, own, reason, wish)
    if found is None:
        return None
    key, refused = found
    slot = {"return": "branch", "renew": "weeks", "lost": "settle", "cancel": "reason", "pickup": "branch"}[intent]
    value = other_value(rng, slot, own[key].get(slot))
    hint = f"the {words} of {own[key]['title']}"
    return slots | {key_name: key, slot: value}, refused, {key_name: hint}


def _book_goal(
    rng: random.Random, intent: str, slots: dict[str, Any], tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    member_id = slots["member_id"]
    records = [r for table in ("loans", "holds") for r in tables[table].values() if r["member_id"] == member_id]
    taken = {record["title"] for record in records} | {used.get("title")}
    statuses = [r["status"] for r in tables["loans"].values() if r["member_id"] == member_id]
    standing = state.standing(tables["members"][member_id], statuses)

    def reason(book: Record) -> str:
        status = state.book_status(book)
        if intent == "reserve":
            return "the book is free" if status == "free" else ""
        if status != "free":
            return f"the book is {status}"
        return "" if standing == "in good standing" else f"the member {standing}"

    found = fitting(rng, {t: b for t, b in tables["books"].items() if t not in taken}, reason, wish)
    if found is None:
        return None
    title, refused = found
    slot = "weeks" if intent == "borrow" else "branch"
    return slots | {"title": title, slot: other_value(rng, slot, None)}, refused, {}


def _member_refusal(intent: str, member: Record) -> str:
    if intent == "fine" and not member["fine"]:
        return "there is no open fine"
    if intent == "upgrade" and member["tier"] != "basic":
        return f"the membership is {member['tier']}"
    if intent == "upgrade" and member["fine"]:
        return "a fine is open"
    return ""


def _record_refusal(intent: str, record: Record, books: Mapping[str, Record]) -> str:
    status = record["status"]
    if intent in ("cancel", "pickup"):
        return "" if status == "waiting" else f"the reservation is {status}"
    if status == "lost":
        return "the loan is lost"
    if intent != "renew":
        return ""
    if status != "open":
        return f"the loan is {status}"
    if record["renewed"]:
        return "the loan was renewed already"
    return "others are waiting for the book" if books[record["title"]]["waiting"] else ""


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    return other(rng, slot, value, OPTIONS, state.NAMES, state.HOST)
