"""How a client's goals are drawn from the letting agency's state.

Invariant: whether a goal can be served is decided by the conditions that the tools refuse by, on the initial state;
goals of one task never concern the same home or file, so the first cannot change the answer to the second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from muarl_cli.worlds.builtin.rental import conditions, state
from muarl_cli.worlds.builtin.rental.state import RENT_STEP, Tables
from muarl_cli.worlds.draws import Drawn, another, chosen, other
from muarl_cli.worlds.store import Record

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "when": state.TIMES,
    "reason": state.REASONS,
    "term": state.TERMS,
    "start": state.STARTS,
    "method": state.METHODS,
    "access": state.ACCESS,
    "topic": state.TOPICS,
}
"""slots with few values, those that the policy allows"""
BARRED: Mapping[str, tuple[Any, ...]] = {
    "when": state.SOON,
    "term": state.SHORT_TERMS,
    "start": state.LATE_STARTS,
    "method": (state.CASH,),
    "item": state.SMALL_ITEMS,
}
"""values that the policy may bar"""
CLIENT_SLOTS = {"phone": ("phone",), "email": ("email",), "note": ("topic",), "handover": ("topic",)}
"""intents that concern the client alone, with what they need besides; they are never refused"""
FILE_SLOTS: Mapping[str, tuple[str, ...]] = {
    "move": ("viewings", "when"),
    "cancel": ("viewings", "reason"),
    "sign": ("applications", "start"),
    "withdraw": ("applications", "reason"),
    "deposit": ("leases", "method"),
    "renew": ("leases", "term"),
    "notice": ("leases", "leaving"),
    "release": ("leases", "leaving"),
    "repair": ("leases", "item", "access"),
    "emergency": ("leases", "item", "access"),
    "pet": ("leases", "pet"),
    "flatmate": ("leases", "flatmate"),
}
"""intents that concern a file: its table, and what they need besides"""
FILES = {"viewings": "viewing of", "applications": "application for", "leases": "lease of"}
"""tables of files, and how a file is called before its home"""
CLASSES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "leaving": (state.LEAVING, state.SUMMER_LEAVING, state.EARLY_LEAVING),
    "pet": (state.SMALL_PETS, state.LARGE_PETS),
}
"""slots whose values the policy treats by class: who changes their mind stays in the class"""
RIVALS = ({"notice", "release"}, {"repair", "emergency"})
"""intents that open with the same words: what the lease and the policy say decides which of them it is, so a task has
one of each pair, and neither is asked for where the other would be right"""
HOMES_TRIED = 24
"""homes that are looked at for one goal"""


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the clients."""
    return list(tables["clients"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this client: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal. None where this client has
    nothing that fits.
    """
    if any({intent, used.get("intent")} == pair for pair in RIVALS):
        return None
    slots = {"client_id": subject}
    rows: list[Drawn] = []
    if intent in CLIENT_SLOTS:
        rows.append((slots | {s: other_value(rng, s, used.get(s)) for s in CLIENT_SLOTS[intent]}, "", {}))
    elif intent in FILE_SLOTS:
        table = FILE_SLOTS[intent][0]
        number_slot = f"{table.removesuffix('s')}_id"
        for number in tables["clients"][subject][table]:
            file = tables[table][number]
            home = tables["homes"][file["home"]]
            values = _values(rng, intent, wish == "refused")
            early = "leaving" in values and conditions.within_notice(file, values["leaving"])
            if intent in ("notice", "release") and early != (intent == "release"):
                continue
            hints = {number_slot: f"the {FILES[table]} {file['home']}"}
            rows.append((slots | {number_slot: number} | values, _refusal(intent, file, home, values), hints))
    else:
        for name in _homes(rng, intent, subject, tables):
            values, reason = _home_goal(rng, intent, subject, name, tables, wish == "refused")
            rows.append((slots | {"home": name} | values, reason, {}))
    return chosen(rng, rows, wish, used, ("home", "viewing_id", "application_id", "lease_id"))


def _values(rng: random.Random, intent: str, may_be_barred: bool) -> dict[str, Any]:
    """What the client wants for a file; where a refusal is looked for, half the values are barred ones."""
    barred = may_be_barred and rng.random() < 0.5
    values: dict[str, Any] = {}
    for slot in FILE_SLOTS[intent][1:]:
        if intent == "emergency" and slot == "item":
            values[slot] = rng.choice(state.URGENT_ITEMS)
        elif barred and slot in BARRED:
            values[slot] = rng.choice(BARRED[slot])
        elif slot == "item":
            values[slot] = rng.choice(state.ITEMS)
        elif slot in CLASSES:
            values[slot] = rng.choice(rng.choice(CLASSES[slot]))
        else:
            values[slot] = other_value(rng, slot, None)
    return values


def _refusal(intent: str, file: Record, home: Record, values: Mapping[str, Any]) -> str:
    reasons: Mapping[str, Callable[[], str]] = {
        "move": lambda: conditions.no_change(file, values["when"]),
        "cancel": lambda: conditions.no_change(file),
        "sign": lambda: conditions.no_signing(file, values["start"]),
        "withdraw": lambda: conditions.no_withdrawal(file),
        "deposit": lambda: conditions.no_payment(file, values["method"]),
        "renew": lambda: conditions.no_renewal(file, values["term"]),
        "notice": lambda: conditions.no_notice(file, values["leaving"]),
        "release": lambda: conditions.no_release(file),
        "repair": lambda: conditions.no_repair(file, values["item"]),
        "emergency": lambda: conditions.no_repair(file, values["item"]),
        "pet": lambda: conditions.no_pet(file, home, values["pet"]),
        "flatmate": lambda: conditions.no_flatmate(file, home),
    }
    return reasons[intent]()


def _homes(rng: random.Random, intent: str, subject: str, tables: Tables) -> list[str]:
    """Homes that the client may have in mind: some of the market, those they viewed, those they own."""
    free = [name for name, home in tables["homes"].items() if home["status"] != "let"]
    names = rng.sample(free, HOMES_TRIED)
    if intent == "rent":
        return [name for name, home in tables["homes"].items() if home["client_id"] == subject] + names[:4]
    viewed = [tables["viewings"][number]["home"] for number in tables["clients"][subject]["viewings"]]
    return list(dict.fromkeys((*viewed, *(names[:2] if intent == "apply" else names))))


def _home_goal(
    rng: random.Random, intent: str, subject: str, name: str, tables: Tables, may_be_barred: bool
) -> tuple[dict[str, Any], str]:
    home, client = tables["homes"][name], tables["clients"][subject]
    barred = may_be_barred and rng.random() < 0.5
    if intent == "rent":
        most = 11 * home["rent"] // 10 // RENT_STEP * RENT_STEP
        away = RENT_STEP * rng.randrange(1, 7)
        rent = most + away if barred else most - away
        return {"rent": rent}, conditions.no_rent(home, subject, rent)
    viewings = [tables["viewings"][number] for number in client["viewings"]]
    if intent == "viewing":
        when = rng.choice(BARRED["when"]) if barred else other_value(rng, "when", None)
        return {"when": when}, conditions.no_viewing(home, name, viewings, when)
    applications = [tables["applications"][number] for number in client["applications"]]
    most = state.PER_ROOM * home["rooms"]
    people, term = rng.randrange(1, most + 1), other_value(rng, "term", None)
    if barred and rng.random() < 0.5:
        people = most + 1
    elif barred:
        term = rng.choice(BARRED["term"])
    reason = conditions.no_application(home, name, client["income"], viewings, applications, term, people)
    return {"people": people, "term": term}, reason


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value` that the policy allows wherever it allows `value`."""
    if slot == "rent":
        return value - RENT_STEP * rng.randrange(1, 5)
    if slot in CLASSES:
        return another(rng, next(same for same in CLASSES[slot] if value in same), value)
    return other(rng, "email" if slot == "flatmate" else slot, value, OPTIONS, state.NAMES, state.HOST)
