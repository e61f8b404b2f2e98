"""The workbooks of eight branches, and the goals of those who keep them.

Invariant: two goals of a task never concern the same sheet's rows where the first one would move or rename what the
second one looks for; every sheet has the same shape, so that a row is found by its name.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BRANCHES = ("north", "south", "east", "west", "harbour", "station", "airport", "market")
ITEMS = (
    "ink", "toner", "paper", "staples", "folders", "markers", "envelopes", "labels", "scissors", "glue", "rulers",
    "stamps", "pencils", "erasers", "binders", "clips",
)  # fmt: skip
NEW_ITEMS = ("chalk", "tape", "string", "crayons", "notebooks", "badges", "magnets", "cards")
PEOPLE = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl", "anna", "theo", "mara", "noah")
TEAMS = ("front desk", "warehouse", "delivery", "repairs", "accounts")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
FURTHER = ("archive", "sketches", "old prices", "misc")
"""sheets that are there; new ones have other names, so that a change of mind never meets one"""
OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "quantity": tuple(range(101, 180)),
    "price": tuple(range(51, 99)),
    "hours": tuple(range(20, 41)),
    "team": TEAMS,
    "note": ("closed for a week", "the big fair", "a new catalogue", "roof repaired", "two days of strike"),
    "sheet": ("orders", "returns", "budget", "holidays", "visitors", "forecast", "contacts", "repairs list"),
    "column": ("item", "quantity", "price"),
    "cell": tuple(f"{column}{row}" for column in "EFG" for row in range(4, 12)),
    "fresh": NEW_ITEMS,
}
"""slots with few values"""
GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("quantity", "price", "rename_item", "add_item", "sold_out", "sort", "worth"), "stock"),
    **dict.fromkeys(("hours", "team"), "staff"),
    **dict.fromkeys(("new_sheet", "copy_sheet", "rename_sheet"), "sheets"),
}
"""intents of which a task has at most one"""

Tables = dict[str, dict[str, dict[str, Any]]]
Drawn = tuple[dict[str, Any], str, dict[str, str]]


def state(seed: int) -> Tables:
    """Eight workbooks with 12 items, 8 people and 12 months each, and one further sheet."""
    rng = random.Random(f"spreadsheet/{seed}")
    books: dict[str, dict[str, Any]] = {}
    for branch in BRANCHES:
        books[f"{branch}.xlsx"] = {
            "stock": {item: [rng.randrange(1, 100), rng.randrange(1, 50)] for item in rng.sample(ITEMS, 12)},
            "staff": {name: [rng.randrange(10, 20), rng.choice(TEAMS)] for name in rng.sample(PEOPLE, 8)},
            "sales": {month: rng.randrange(1000, 9000) for month in MONTHS},
            "further": rng.choice(FURTHER),
        }
    return {"books": books}


def write(tables: Tables, place: Path) -> None:
    """The workbook files."""
    from openpyxl import Workbook

    for name, record in tables["books"].items():
        book = Workbook()
        stock = book.active
        stock.title = "stock"
        for row in (["item", "quantity", "price"], *([i, *v] for i, v in record["stock"].items()), ["next item"]):
            stock.append(row)
        staff = book.create_sheet("staff")
        for row in (["name", "hours", "team"], *([n, *v] for n, v in record["staff"].items())):
            staff.append(row)
        sales = book.create_sheet("sales")
        for row in (["month", "sales", "note"], *([m, v] for m, v in record["sales"].items())):
            sales.append(row)
        sales["E1"], sales["E2"] = "total", "=SUM(B2:B13)"
        book.create_sheet(record["further"])
        book.save(place / name)


def subjects(tables: Tables) -> list[str]:
    """What a task can be about: the workbooks."""
    return list(tables["books"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent in this workbook: (slots, why it must be refused or "", hints)."""
    if intent in GROUPS and GROUPS[intent] == GROUPS.get(used.get("intent", "")):
        return None
    book, possible = tables["books"][subject], wish == "possible"
    slots: dict[str, Any] = {slot: other_value(rng, slot, used.get(slot)) for slot in OPTIONS}
    slots["book"] = subject
    for slot, sheet, names in (("item", "stock", ITEMS), ("person", "staff", PEOPLE)):
        rows = list(book[sheet])
        slots[slot] = rng.choice(rows if possible else [name for name in names if name not in rows])
        if possible:
            slots[f"{slot}_row"] = str(rows.index(slots[slot]) + 2)
    slots["month"] = rng.choice(MONTHS)
    slots["old"] = rng.choice(("stock", "staff", "sales"))
    refused = ""
    if not possible:
        refused = "there is no such row"
        if intent == "new_sheet":
            slots["sheet"], refused = book["further"], "there is such a sheet"
        elif intent == "rename_sheet":
            refused = "it is one of the three that keep their names"
    elif intent == "rename_sheet":
        slots["old"] = book["further"]
    return slots | _derived(intent, slots, book), refused, {}


def _derived(intent: str, slots: Mapping[str, Any], book: Mapping[str, Any]) -> dict[str, str]:
    """What only the workbook tells: the row of a name, or the answer to a question."""
    if intent == "note":
        return {"row": str(MONTHS.index(slots["month"]) + 2)}
    if intent == "add_item":
        return {"row": str(len(book["stock"]) + 2)}
    if intent == "total":
        return {"answer": str(sum(book["sales"].values()))}
    if intent == "worth":
        return {"answer": str(book["stock"][slots["item"]][1])}
    row = slots.get("person_row" if GROUPS.get(intent) == "staff" else "item_row")
    return {"row": row} if row else {}


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    return rng.choice([option for option in OPTIONS[slot] if option != value])
