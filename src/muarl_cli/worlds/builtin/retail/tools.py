"""The retail order desk: its state, its tools, and how goals are drawn from its state.

Tables: customers (name, email, phone, orders), orders (customer_id, status, items, address, method, speed, ...),
tickets. Invariant: each kind of change is possible once per order, so a write that was made without asking cannot be
repaired.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.worlds.draws import another, email_address, other, person, phone_number
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

OWNER = "customer_id"
HOST = "mail.com"
NAMES = (
    "mia", "tom", "ana", "leo", "eva", "max", "ida", "ben", "zoe", "jon", "amy", "sam", "lea", "kim", "dan", "ella"
)  # fmt: skip
ITEMS = ("lamp", "desk", "chair", "clock", "rug", "vase", "mirror", "kettle", "bottle", "jacket", "backpack", "watch")
COLORS = ("red", "blue", "green", "black", "white", "yellow", "silver", "brown")
STREETS = ("oak street", "hill road", "lake lane", "park avenue", "mill street", "rose lane")
CITIES = ("porto", "lyon", "oslo", "turin", "ghent", "graz")
METHODS = ("card", "paypal", "voucher", "invoice")
SPEEDS = ("standard", "express", "overnight")
REASONS = ("no longer needed", "ordered by mistake", "found it cheaper", "takes too long")
REFUNDS = ("card", "store credit", "voucher")
TOPICS = ("damaged parcel", "missing part", "wrong invoice", "warranty claim")
CODES = ("SPRING", "SUMMER", "LUCKY", "BONUS")
MESSAGES = ("happy birthday", "with love", "well done", "get well soon")

OPTIONS: Mapping[str, Sequence[Any]] = {
    "reason": REASONS,
    "option": COLORS,
    "quantity": range(1, 10),
    "method": METHODS,
    "speed": SPEEDS,
    "code": CODES,
    "message": MESSAGES,
    "refund": REFUNDS,
    "topic": TOPICS,
}
"""slots with few values"""

CUSTOMER, ORDER = four_digits("customer id, four digits"), four_digits("order id, four digits")
ITEM = text("name of an item in the order")


def _address(rng: random.Random) -> dict[str, str]:
    return {"street": f"{rng.randrange(10, 100)} {rng.choice(STREETS)}", "city": rng.choice(CITIES)}


def state(seed: int) -> dict[str, dict[str, Record]]:
    """300 customers with two or three orders each; the same seed gives the same state."""
    rng = random.Random(f"retail/{seed}")
    customers: dict[str, Record] = {}
    orders: dict[str, Record] = {}
    customer_ids = rng.sample(range(1000, 10000), 300)
    order_ids = iter(rng.sample(range(1000, 10000), 900))
    for number in customer_ids:
        own = [str(next(order_ids)) for _ in range(rng.choice((2, 3)))]
        customers[str(number)] = person(rng, NAMES, HOST) | {"orders": own}
        # the items of one customer's orders differ, so that an item names one order
        pool = rng.sample(ITEMS, len(ITEMS))
        for order in own:
            items = [
                {"item": pool.pop(), "option": rng.choice(COLORS), "quantity": rng.randrange(1, 5)}
                for _ in range(rng.choice((1, 2, 2)))
            ]
            orders[order] = {
                "customer_id": str(number),
                "status": rng.choices(("pending", "delivered", "shipped"), (6, 3, 1))[0],
                "items": items,
                "address": _address(rng),
                "method": rng.choice(METHODS),
                "speed": rng.choice(SPEEDS[:2]),
                "changed": [],
            }
    return {"customers": customers, "orders": orders, "tickets": {}}


def _change(desk: Desk, order_id: str, status: str, change: str, fields: Record, item: str = "") -> str:
    """Set these fields of an order that has this status, or those of an `item` in it; each kind of change once."""
    order = desk.in_status("orders", "order", order_id, status)
    if change in order["changed"]:
        raise Refusal(f"{change} of order {order_id} was already changed once")
    order["changed"] = sorted([*order["changed"], change])
    (_item(order, order_id, item) if item else order).update(fields)
    desk.save("orders", order_id, order)
    return "ok"


def _item(order: Record, order_id: str, item: str) -> Record:
    for row in order["items"]:
        if row["item"] == item:
            return row  # type: ignore[no-any-return]
    raise Refusal(f"order {order_id} has no {item}; it has {', '.join(row['item'] for row in order['items'])}")


@tool(ToolClass.READ, "Contact details of a customer.", customer_id=CUSTOMER)
def get_customer(desk: Desk, customer_id: str) -> Any:
    return desk.show("customers", customer_id, "name", "email", "phone")


@tool(ToolClass.READ, "The orders of a customer with their items.", customer_id=CUSTOMER)
def list_orders(desk: Desk, customer_id: str) -> Any:
    orders = desk.read("customers", customer_id)["orders"]
    return {key: " ".join(row["item"] for row in desk.read("orders", key)["items"]) for key in orders}


@tool(ToolClass.READ, "One order. The customer id must be that of its owner.", customer_id=CUSTOMER, order_id=ORDER)
def get_order(desk: Desk, customer_id: str, order_id: str) -> Any:
    order = desk.own("orders", "order", order_id, customer_id)
    items = [f"{row['quantity']} {row['option']} {row['item']}" for row in order["items"]]
    return {"status": order["status"], "items": items, "method": order["method"], "speed": order["speed"]}


@tool(ToolClass.WRITE, "Cancel a pending order.", order_id=ORDER, reason=choice("why", REASONS))
def cancel_order(desk: Desk, order_id: str, reason: str) -> Any:
    return _change(desk, order_id, "pending", "status", {"status": "cancelled", "reason": reason})


@tool(
    ToolClass.WRITE,
    "Change where a pending order is sent.",
    order_id=ORDER,
    address=nested("the new address", street=text("number and street"), city=text("city")),
)
def change_address(desk: Desk, order_id: str, address: dict[str, str]) -> Any:
    return _change(desk, order_id, "pending", "address", {"address": address})


@tool(
    ToolClass.WRITE,
    "Change the colour of an item of a pending order.",
    order_id=ORDER,
    item=ITEM,
    option=choice("the new colour", COLORS),
)
def change_option(desk: Desk, order_id: str, item: str, option: str) -> Any:
    return _change(desk, order_id, "pending", "option", {"option": option}, item)


@tool(
    ToolClass.WRITE,
    "Change how many of an item a pending order holds.",
    order_id=ORDER,
    item=ITEM,
    quantity=integer("the new quantity", 1, 9),
)
def change_quantity(desk: Desk, order_id: str, item: str, quantity: int) -> Any:
    return _change(desk, order_id, "pending", "quantity", {"quantity": quantity}, item)


@tool(ToolClass.WRITE, "Change how a pending order is paid.", order_id=ORDER, method=choice("the new method", METHODS))
def change_payment(desk: Desk, order_id: str, method: str) -> Any:
    return _change(desk, order_id, "pending", "payment", {"method": method})


@tool(
    ToolClass.WRITE,
    "Change how fast a pending order is sent.",
    order_id=ORDER,
    speed=choice("the new speed", SPEEDS),
)
def change_shipping(desk: Desk, order_id: str, speed: str) -> Any:
    return _change(desk, order_id, "pending", "shipping", {"speed": speed})


@tool(ToolClass.WRITE, "Apply a coupon to a pending order.", order_id=ORDER, code=choice("the coupon", CODES))
def apply_coupon(desk: Desk, order_id: str, code: str) -> Any:
    return _change(desk, order_id, "pending", "coupon", {"coupon": code})


@tool(
    ToolClass.WRITE,
    "Wrap an item of a pending order as a gift.",
    order_id=ORDER,
    item=ITEM,
    message=choice("what the card says", MESSAGES),
)
def add_gift_wrap(desk: Desk, order_id: str, item: str, message: str) -> Any:
    return _change(desk, order_id, "pending", "gift", {"gift": message}, item)


@tool(
    ToolClass.WRITE,
    "Take back an item of a delivered order.",
    order_id=ORDER,
    item=ITEM,
    refund=choice("how it is refunded", REFUNDS),
)
def return_item(desk: Desk, order_id: str, item: str, refund: str) -> Any:
    return _change(desk, order_id, "delivered", "return", {"returned": refund}, item)


@tool(
    ToolClass.WRITE,
    "Exchange an item of a delivered order for one of another colour.",
    order_id=ORDER,
    item=ITEM,
    option=choice("the wanted colour", COLORS),
)
def exchange_item(desk: Desk, order_id: str, item: str, option: str) -> Any:
    return _change(desk, order_id, "delivered", "exchange", {"exchanged": option}, item)


@tool(
    ToolClass.WRITE,
    "Change the phone number or the email of a customer.",
    customer_id=CUSTOMER,
    contact=some_of("the new phone number (six digits) or the new email", phone=PHONE, email=EMAIL),
)
def update_contact(desk: Desk, customer_id: str, contact: dict[str, str]) -> Any:
    return desk.change_once("customers", customer_id, contact)


@tool(
    ToolClass.WRITE,
    "Open a ticket for a matter that only a human can settle.",
    customer_id=CUSTOMER,
    topic=choice("what it is about", TOPICS),
)
def open_ticket(desk: Desk, customer_id: str, topic: str) -> Any:
    desk.read("customers", customer_id)
    if desk.find("tickets", customer_id=customer_id):
        raise Refusal(f"customer {customer_id} already has an open ticket")
    desk.save("tickets", f"{customer_id}-1", {"customer_id": customer_id, "topic": topic})
    return "ok"


TOOLS = toolset(
    get_customer,
    list_orders,
    get_order,
    cancel_order,
    change_address,
    change_option,
    change_quantity,
    change_payment,
    change_shipping,
    apply_coupon,
    add_gift_wrap,
    return_item,
    exchange_item,
    update_contact,
    open_ticket,
)

PENDING = ("cancel", "address", "option", "quantity", "payment", "shipping", "coupon", "gift")


def subjects(tables: dict[str, dict[str, Record]]) -> list[str]:
    """Whom a task can be about: the customers."""
    return list(tables["customers"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: dict[str, dict[str, Record]], wish: str, used: dict[str, Any]
) -> tuple[dict[str, Any], str, dict[str, str]] | None:
    """Values for an intent of this customer: (slots, why it must be refused or "", hints for what may be unknown).

    `wish` is "possible" or "refused". `used` holds values of the task's earlier goal, whose order is preferred. None
    where this customer has nothing that fits.
    """
    slots: dict[str, Any] = {"customer_id": subject}
    if intent == "phone":
        return slots | {"phone": phone_number(rng)}, "", {}
    if intent == "email":
        return slots | {"email": email_address(rng, NAMES, HOST)}, "", {}
    if intent in ("ticket", "handover"):
        return slots | {"topic": rng.choice(TOPICS)}, "", {}
    wanted = "pending" if intent in PENDING else "delivered"
    orders = {key: tables["orders"][key] for key in tables["customers"][subject]["orders"]}
    fitting = [key for key, order in orders.items() if (order["status"] == wanted) == (wish == "possible")]
    if wish == "possible" and intent != "cancel" and used.get("order_id") in fitting and used.get("intent") != "cancel":
        fitting = [used["order_id"]]
    elif used.get("order_id") in fitting and (intent == "cancel" or used.get("intent") == "cancel"):
        fitting.remove(used["order_id"])
    if not fitting:
        return None
    key = rng.choice(fitting)
    order = orders[key]
    item = rng.choice(order["items"])
    slots |= {"order_id": key, "item": item["item"]}
    match intent:
        case "cancel":
            slots["reason"] = rng.choice(REASONS)
        case "address":
            slots["address"] = _address(rng)
        case "option" | "exchange":
            slots["option"] = another(rng, COLORS, item["option"])
        case "quantity":
            slots["quantity"] = another(rng, range(1, 10), item["quantity"])
        case "payment":
            slots["method"] = another(rng, METHODS, order["method"])
        case "shipping":
            slots["speed"] = another(rng, SPEEDS, order["speed"])
        case "coupon":
            slots["code"] = rng.choice(CODES)
        case "gift":
            slots["message"] = rng.choice(MESSAGES)
        case "return":
            slots["refund"] = rng.choice(REFUNDS)
        case _:
            raise ValueError(f"unknown intent {intent}")
    refused = "" if wish == "possible" else f"the order is {order['status']}"
    return slots, refused, {"order_id": f"the order with the {item['item']}"}


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """Another value of this slot, for a change of mind."""
    fresh: Mapping[str, Callable[[], Any]] = {
        "address": lambda: _address(rng),
        "phone": lambda: phone_number(rng),
        "email": lambda: email_address(rng, NAMES, HOST),
    }
    return another(rng, (fresh[slot](),), value) if slot in fresh else other(rng, slot, value, OPTIONS, NAMES, HOST)
