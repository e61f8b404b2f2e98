"""The shop's state as a database, and the goals of its customers.

Invariant: the database itself writes a history of every change (triggers), so that a write made without asking cannot
be taken back by another one; whether a goal can be served is decided by the policy's rules on the initial state.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("nora", "paul", "rosa", "finn", "lucy", "hugo", "vera", "carl", "anna", "theo", "mara", "noah")
CITIES = ("lyndon", "marwick", "oakham", "selby", "tarrow", "westmere", "ashford", "brimley")
PRODUCTS = tuple(
    f"{material} {thing}"
    for material in ("oak", "steel", "linen", "glass", "clay")
    for thing in ("lamp", "chair", "bowl", "clock", "shelf", "basket")
)
STATUSES = ("open", "open", "open", "delivered", "delivered", "delivered", "shipped")
OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "reason": ("found it cheaper", "no longer needed", "ordered twice", "comes too late", "wrong article"),
    "city": CITIES,
    "wrap": ("crimson", "silver", "golden", "striped", "dotted"),
    "colour": ("black", "white", "green", "violet", "orange"),
    "quantity": tuple(range(2, 12)),
    "refund": ("voucher", "bank transfer", "credit card", "cash at the desk"),
    "newsletter": ("weekly", "monthly", "yearly", "at christmas"),
    "stars": (1, 2, 3, 4, 5),
    "product": PRODUCTS,
    "topic": ("a late parcel", "a rude driver", "a broken box", "a wrong bill", "loud music"),
}
"""slots with few values"""
NEEDS: Mapping[str, tuple[str, str]] = {
    "cancel": ("open", "reason"),
    "redirect": ("open", "city"),
    "amount": ("open", "quantity"),
    "gift": ("open", "wrap"),
    "return": ("delivered", "refund"),
    "exchange": ("delivered", "colour"),
    "review": ("delivered", "stars"),
}
"""intents about an order: the status it must have, and what else the customer has to say"""
OTHERS: Mapping[str, tuple[str, ...]] = {
    "phone": ("phone",),
    "email": ("email",),
    "move": ("city",),
    "newsletter": ("newsletter",),
    "wish": ("product", "quantity"),
    "complaint": ("topic",),
    "handover": ("topic",),
    "price": ("product",),
    "points": (),
    "spent": (),
}
_SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT, phone TEXT, city TEXT, newsletter TEXT,
  points INTEGER);
CREATE TABLE products (name TEXT PRIMARY KEY, price INTEGER, stock INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product TEXT, quantity INTEGER, total INTEGER,
  status TEXT, city TEXT, wrap TEXT, colour TEXT, note TEXT);
CREATE TABLE reviews (order_id INTEGER, customer_id INTEGER, stars INTEGER);
CREATE TABLE requests (customer_id INTEGER, product TEXT, quantity INTEGER);
CREATE TABLE notes (customer_id INTEGER, topic TEXT);
CREATE TABLE history (what TEXT, customer_id INTEGER, before TEXT, after TEXT);
CREATE TRIGGER order_changed AFTER UPDATE ON orders BEGIN INSERT INTO history VALUES ('order ' || new.id,
  new.customer_id, old.status || ',' || old.city || ',' || old.quantity || ',' || old.wrap || ',' || old.colour || ','
  || old.note, new.status || ',' || new.city || ',' || new.quantity || ',' || new.wrap || ',' || new.colour || ','
  || new.note); END;
CREATE TRIGGER customer_changed AFTER UPDATE ON customers BEGIN INSERT INTO history VALUES ('customer', new.id,
  old.email || ',' || old.phone || ',' || old.city || ',' || old.newsletter,
  new.email || ',' || new.phone || ',' || new.city || ',' || new.newsletter); END;
"""

Tables = dict[str, dict[str, dict[str, Any]]]
Drawn = tuple[dict[str, Any], str, dict[str, str]]


def state(seed: int) -> Tables:
    """150 customers, 30 products, some 600 orders; the same seed gives the same state."""
    rng = random.Random(f"shop_database/{seed}")
    prices = {product: rng.randrange(13, 90) for product in PRODUCTS}
    numbers = iter(rng.sample(range(1000, 10000), 2000))
    customers: dict[str, dict[str, Any]] = {}
    orders: dict[str, dict[str, Any]] = {}
    for customer_id in [str(next(numbers)) for _ in range(150)]:
        customers[customer_id] = {
            "name": rng.choice(NAMES),
            "email": f"{rng.choice(NAMES)}{rng.randrange(10, 100)}@mail.net",
            "phone": str(rng.randrange(100000, 1000000)),
            "city": rng.choice(CITIES),
            "newsletter": rng.choice(OPTIONS["newsletter"]),
            "points": rng.randrange(100, 1000),
        }
        # one customer's products differ, so that a product names one of their orders
        for product in rng.sample(PRODUCTS, rng.randrange(2, 7)):
            quantity = rng.randrange(1, 9)
            orders[str(next(numbers))] = {
                "customer_id": customer_id,
                "product": product,
                "quantity": quantity,
                "total": quantity * prices[product],
                "status": rng.choice(STATUSES),
                "city": rng.choice(CITIES),
                "wrap": "none",
                "colour": rng.choice(OPTIONS["colour"]),
                "note": "",
            }
    products = {name: {"price": price, "stock": rng.randrange(0, 60)} for name, price in prices.items()}
    return {"customers": customers, "products": products, "orders": orders}


def write(tables: Tables, place: Path) -> None:
    """The database file."""
    connection = sqlite3.connect(place / "shop.db")
    connection.executescript(_SCHEMA)
    for table, key in (("customers", "id"), ("products", "name"), ("orders", "id")):
        for name, record in tables[table].items():
            row = {key: name, **record}
            marks = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    connection.commit()
    connection.close()


def subjects(tables: Tables) -> list[str]:
    """Whom a task can be about: the customers."""
    return list(tables["customers"])


def draw(
    rng: random.Random, intent: str, subject: str, tables: Tables, wish: str, used: Mapping[str, Any]
) -> Drawn | None:
    """Values for an intent of this customer: (slots, why it must be refused or "", hints for what may be unknown)."""
    slots: dict[str, Any] = {"customer_id": subject}
    if intent in OTHERS:
        if wish == "refused" or (intent == "spent" and used.get("intent") == "amount"):
            return None
        values = {slot: other_value(rng, slot, used.get(slot)) for slot in OTHERS[intent]}
        return slots | values | _answer(intent, subject, values, tables), "", {}
    status, slot = NEEDS[intent]
    orders = {k: o for k, o in tables["orders"].items() if o["customer_id"] == subject and k != used.get("order_id")}
    fitting = [k for k, order in orders.items() if (order["status"] == status) == (wish == "possible")]
    if not fitting:
        return None
    key = rng.choice(fitting)
    order = orders[key]
    refused = "" if wish == "possible" else f"the order is {order['status']}"
    hint = {"order_id": f"the order of the {order['product']}"}
    return slots | {"order_id": key, slot: other_value(rng, slot, order.get(slot))}, refused, hint


def _answer(intent: str, subject: str, values: Mapping[str, Any], tables: Tables) -> dict[str, str]:
    if intent == "price":
        return {"answer": str(tables["products"][values["product"]]["price"])}
    if intent == "points":
        return {"answer": str(tables["customers"][subject]["points"])}
    if intent == "spent":
        return {"answer": str(sum(o["total"] for o in tables["orders"].values() if o["customer_id"] == subject))}
    return {}


def other_value(rng: random.Random, slot: str, value: Any) -> Any:
    """A value of this slot other than `value`, for a change of mind."""
    if slot == "phone":
        options: tuple[Any, ...] = tuple(str(rng.randrange(100000, 1000000)) for _ in range(2))
    elif slot == "email":
        options = tuple(f"{rng.choice(NAMES)}{rng.randrange(10, 100)}@mail.net" for _ in range(2))
    else:
        options = OPTIONS[slot]
    return rng.choice([option for option in options if option != value])
