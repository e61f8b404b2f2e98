"""The letting agency's tools, over clients, homes, viewings, applications, leases and notes.

Invariant: each kind of change is possible once per record, so a write that was made without asking cannot be repaired.
The policy they refuse by is in conditions.py, the state in state.py, the goals drawn from it in goals.py; a scenario
takes all of it from here.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.builtin.rental import conditions
from muarl_cli.worlds.builtin.rental.goals import FILES, draw, other_value, subjects
from muarl_cli.worlds.builtin.rental.state import (
    ACCESS,
    CASH,
    ITEMS,
    LARGE_PETS,
    METHODS,
    REASONS,
    SHORT_TERMS,
    SMALL_ITEMS,
    SMALL_PETS,
    SOON,
    TERMS,
    TIMES,
    TOPICS,
    URGENT_ITEMS,
    state,
)
from muarl_cli.worlds.store import Record
from muarl_cli.worlds.toolkit import (
    EMAIL,
    PHONE,
    Desk,
    choice,
    four_digits,
    integer,
    nested,
    one_of,
    refuse,
    some_of,
    text,
    tool,
    toolset,
)

__all__ = ["OWNER", "TOOLS", "draw", "other_value", "state", "subjects"]

OWNER = "client_id"
CLIENT, VIEWING = four_digits("client number, four digits"), four_digits("viewing number, four digits")
APPLICATION, LEASE = four_digits("application number, four digits"), four_digits("lease number, four digits")
HOME, DAY = text("name of the home"), text("YYYY-MM-DD", r"^202[67]-[01][0-9]-[0-3][0-9]$")
WHEN, REASON = choice("day and part of the day", (*TIMES, *SOON)), choice("why", REASONS)
ITEM, BY = choice("what is broken", (*ITEMS, *URGENT_ITEMS, *SMALL_ITEMS)), choice("how to get in", ACCESS)
TERM = choice("how long", (*TERMS, *SHORT_TERMS))


def _files(desk: Desk, client: Record, table: str) -> list[Record]:
    return [desk.read(table, number) for number in client[table]]


def _file(desk: Desk, table: str, client_id: str, number: str) -> Record:
    """A file of this client as the agent reads it."""
    file = desk.own(table, table.removesuffix("s"), number, client_id)
    del file["client_id"]
    return file


def _open_file(desk: Desk, table: str, client_id: str, record: Record) -> str:
    """Add a file of the client; its number."""
    client = desk.read("clients", client_id)
    number = desk.free_number(("clients", *FILES), client_id, record["home"])
    desk.save(table, number, {"client_id": client_id} | record)
    desk.save("clients", client_id, client | {table: sorted([*client[table], number])})
    return f"{table.removesuffix('s')} {number}"


@tool(ToolClass.READ, "Contact details and monthly income (euros) of a client.", client_id=CLIENT)
def get_client(desk: Desk, client_id: str) -> Any:
    return desk.show("clients", client_id, "name", "email", "phone", "income")


@tool(ToolClass.READ, "The viewings, applications and leases of a client, with their homes.", client_id=CLIENT)
def list_files(desk: Desk, client_id: str) -> Any:
    client = desk.read("clients", client_id)
    return {key: f"{words} {desk.read(table, key)['home']}" for table, words in FILES.items() for key in client[table]}


@tool(ToolClass.READ, "One home (rent in euros a month), and how a client stands to it.", client_id=CLIENT, home=HOME)
def get_home(desk: Desk, client_id: str, home: str) -> Any:
    client, found = desk.read("clients", client_id), desk.read("homes", home)
    viewings = _files(desk, client, "viewings")
    applications = [file for file in _files(desk, client, "applications") if file["status"] in ("open", "approved")]
    return {
        "status": found["status"],
        "rooms": found["rooms"],
        "rent": found["rent"],
        "rent changed before": found["repriced"],
        "client": {
            "is the owner": found["client_id"] == client_id,
            "income": client["income"],
            "viewings of it": [file["status"] for file in viewings if file["home"] == home],
            "missed viewings": sum(file["status"] == "missed" for file in viewings),
            "applied for it": any(file["home"] == home for file in applications),
            "running applications": len(applications),
        },
    }


@tool(
    ToolClass.READ,
    "One viewing. The client number must be that of its client.",
    client_id=CLIENT,
    viewing_id=VIEWING,
)
def get_viewing(desk: Desk, client_id: str, viewing_id: str) -> Any:
    return _file(desk, "viewings", client_id, viewing_id)


@tool(
    ToolClass.READ,
    "One application. The client number must be that of its client.",
    client_id=CLIENT,
    application_id=APPLICATION,
)
def get_application(desk: Desk, client_id: str, application_id: str) -> Any:
    return _file(desk, "applications", client_id, application_id)


@tool(
    ToolClass.READ,
    "One lease and its home. The client number must be that of the tenant.",
    client_id=CLIENT,
    lease_id=LEASE,
)
def get_lease(desk: Desk, client_id: str, lease_id: str) -> Any:
    lease = _file(desk, "leases", client_id, lease_id)
    home = desk.read("homes", lease["home"])
    return lease | {"rooms": home["rooms"], "pets allowed": home["pets"]}


@tool(ToolClass.WRITE, "Book a viewing of a free home.", client_id=CLIENT, home=HOME, when=WHEN)
def book_viewing(desk: Desk, client_id: str, home: str, when: str) -> Any:
    client, found = desk.read("clients", client_id), desk.read("homes", home)
    refuse(conditions.no_viewing(found, home, _files(desk, client, "viewings"), when))
    viewing = {"home": home, "status": "planned", "when": when, "moved": False}
    return _open_file(desk, "viewings", client_id, viewing)


@tool(
    ToolClass.WRITE,
    "Move a planned viewing, once (when), or cancel it (reason).",
    viewing_id=VIEWING,
    change=one_of(nested("move it", when=WHEN), nested("cancel it", reason=REASON)),
)
def change_viewing(desk: Desk, viewing_id: str, change: dict[str, str]) -> Any:
    viewing = desk.read("viewings", viewing_id)
    refuse(conditions.no_change(viewing, change.get("when", "")))
    news = {"moved": True} if "when" in change else {"status": "cancelled"}
    desk.save("viewings", viewing_id, viewing | change | news)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Apply for a free home that the client has viewed and can afford.",
    client_id=CLIENT,
    home=HOME,
    terms=nested("what the lease shall be", people=integer("how many move in", 1, 12), term=TERM),
)
def apply_for_home(desk: Desk, client_id: str, home: str, terms: dict[str, Any]) -> Any:
    client, found = desk.read("clients", client_id), desk.read("homes", home)
    viewings, applications = _files(desk, client, "viewings"), _files(desk, client, "applications")
    refuse(conditions.no_application(found, home, client["income"], viewings, applications, **terms))
    return _open_file(desk, "applications", client_id, {"home": home, "status": "open"} | terms)


@tool(
    ToolClass.WRITE,
    "Sign the lease of an approved application (start), or withdraw an application (reason).",
    application_id=APPLICATION,
    outcome=one_of(nested("sign", start=DAY), nested("withdraw", reason=REASON)),
)
def close_application(desk: Desk, application_id: str, outcome: dict[str, str]) -> Any:
    application = desk.read("applications", application_id)
    if "start" in outcome:
        refuse(conditions.no_signing(application, outcome["start"]))
    else:
        refuse(conditions.no_withdrawal(application))
    status = "signed" if "start" in outcome else "withdrawn"
    desk.save("applications", application_id, application | outcome | {"status": status})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Book the open deposit of a lease as paid.",
    lease_id=LEASE,
    method=choice("how it is paid", (*METHODS, CASH)),
)
def pay_deposit(desk: Desk, lease_id: str, method: str) -> Any:
    lease = desk.read("leases", lease_id)
    refuse(conditions.no_payment(lease, method))
    desk.save("leases", lease_id, lease | {"deposit": "paid", "method": method})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Renew a lease, once (term), give notice (leaving), or ask the owner for a release before that (release).",
    lease_id=LEASE,
    change=one_of(
        nested("renew it", term=TERM),
        nested("end it on this day", leaving=DAY),
        nested("ask the owner to let the tenant go on this day", release=DAY),
    ),
)
def change_term(desk: Desk, lease_id: str, change: dict[str, str]) -> Any:
    lease = desk.read("leases", lease_id)
    if "term" in change:
        refuse(conditions.no_renewal(lease, change["term"]))
        desk.save("leases", lease_id, lease | change | {"renewed": True})
    elif "leaving" in change:
        refuse(conditions.no_notice(lease, change["leaving"]))
        desk.save("leases", lease_id, lease | {"status": "notice given", "ends": change["leaving"]})
    else:
        refuse(conditions.no_release(lease))
        desk.save("leases", lease_id, lease | change)
    return "ok"


@tool(
    ToolClass.WRITE,
    "Order a repair in a leased home.",
    lease_id=LEASE,
    repair=one_of(nested("in turn", item=ITEM, access=BY), nested("an emergency, at once", emergency=ITEM, access=BY)),
)
def order_repair(desk: Desk, lease_id: str, repair: dict[str, str]) -> Any:
    lease = desk.read("leases", lease_id)
    item, how = repair.get("item", ""), repair["access"]
    if not item:
        item, how = repair["emergency"], f"at once, {how}"
    refuse(conditions.no_repair(lease, item))
    desk.save("leases", lease_id, lease | {"repairs": lease["repairs"] | {item: how}})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Add a pet or a flatmate to a leased home.",
    lease_id=LEASE,
    newcomer=one_of(
        nested("a pet", pet=choice("what kind", (*SMALL_PETS, *LARGE_PETS))),
        nested("a flatmate", flatmate=EMAIL),
    ),
)
def add_to_household(desk: Desk, lease_id: str, newcomer: dict[str, str]) -> Any:
    lease = desk.read("leases", lease_id)
    home = desk.read("homes", lease["home"])
    if "pet" in newcomer:
        refuse(conditions.no_pet(lease, home, newcomer["pet"]))
        desk.save("leases", lease_id, lease | newcomer)
    else:
        refuse(conditions.no_flatmate(lease, home))
        desk.save("leases", lease_id, lease | {"flatmates": sorted([*lease["flatmates"], newcomer["flatmate"]])})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the asking rent of a free home, once. Only its owner may.",
    client_id=CLIENT,
    home=HOME,
    rent=integer("euros a month", 1, 9999),
)
def set_asking_rent(desk: Desk, client_id: str, home: str, rent: int) -> Any:
    found = desk.read("homes", home)
    refuse(conditions.no_rent(found, client_id, rent))
    desk.save("homes", home, found | {"rent": rent, "repriced": True})
    return "ok"


@tool(
    ToolClass.WRITE,
    "Change the phone number or the email of a client, each once.",
    client_id=CLIENT,
    changes=some_of("what is new", phone=PHONE, email=EMAIL),
)
def update_client(desk: Desk, client_id: str, changes: dict[str, str]) -> Any:
    return desk.change_once("clients", client_id, changes)


@tool(
    ToolClass.WRITE,
    "Leave a note for the staff about a matter that only they can settle.",
    client_id=CLIENT,
    topic=choice("what it is about", TOPICS),
)
def leave_note(desk: Desk, client_id: str, topic: str) -> Any:
    return desk.add_once("notes", client_id, "has left a note", topic=topic)


TOOLS = toolset(
    get_client, list_files, get_home, get_viewing, get_application, get_lease,
    book_viewing, change_viewing, apply_for_home, close_application, pay_deposit, change_term, order_repair,
    add_to_household, set_asking_rent, update_client, leave_note,
)  # fmt: skip
