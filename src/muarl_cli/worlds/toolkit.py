"""How a domain writes its tools: one decorated function a tool, over a desk that knows the episode's store.

Invariant: a tool either raises `Refusal` before it changed anything, or answers; what it changed is what it saved
through the desk, so the write set of a call (entity, id, owner) is never declared by hand.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.events import ToolClass, Write
from muarl_cli.conversation.protocols import ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.store import Base, Record, Store


class Refusal(Exception):
    """The domain says no: the text is what the agent reads."""


def refuse(reason: str) -> None:
    """Say no where there is a reason; "" is none."""
    if reason:
        raise Refusal(reason)


class Desk:
    """What a tool may touch: records of the store, by table and key."""

    def __init__(self, store: Store, owner_field: str) -> None:
        self.store = store
        self.owner_field = owner_field
        self.writes: list[Write] = []

    def read(self, table: str, key: str) -> Record:
        """A copy of the record; refuses where there is none."""
        record = self.store.get(table, key)
        if record is None:
            raise Refusal(f"no {table.rstrip('s')} {key}")
        return record

    def show(self, table: str, key: str, *fields: str) -> dict[str, Any]:
        """These fields of a record, in this order."""
        record = self.read(table, key)
        return {field: record[field] for field in fields}

    def find(self, table: str, **fields: Any) -> list[tuple[str, Record]]:
        """All records whose fields have these values."""
        return self.store.find(table, fields)

    def own(self, table: str, words: str, key: str, owner: str) -> Record:
        """A copy of a record that belongs to `owner`; refuses any other. `words` name such a record."""
        record = self._known(table, words, key)
        if record[self.owner_field] != owner:
            raise Refusal(f"{words} {key} does not belong to {self.owner_field.removesuffix('_id')} {owner}")
        return record

    def in_status(self, table: str, words: str, key: str, *statuses: str) -> Record:
        """A copy of a record that has one of these statuses; refuses any other."""
        record = self._known(table, words, key)
        if record["status"] not in statuses:
            raise Refusal(f"{words} {key} is {record['status']}, not {' or '.join(statuses)}")
        return record

    def _known(self, table: str, words: str, key: str) -> Record:
        record = self.store.get(table, key)
        if record is None:
            raise Refusal(f"no {words} {key}")
        return record

    def free_number(self, tables: tuple[str, ...], *parts: str) -> str:
        """A four-digit number that is free in all these tables and depends on `parts`, so that the order of writes does
        not show in it."""
        number = derive_seed(*parts) % 9000
        while any(self.store.get(table, str(1000 + number)) for table in tables):
            number = (number + 1) % 9000
        return str(1000 + number)

    def add_once(self, table: str, owner: str, taken: str, **fields: Any) -> str:
        """Add the one record that an owner may have in this table; refuses a second one, which is `taken`."""
        self.read(f"{self.owner_field.removesuffix('_id')}s", owner)
        if self.find(table, **{self.owner_field: owner}):
            raise Refusal(f"{self.owner_field.removesuffix('_id')} {owner} {taken}")
        self.save(table, owner, {self.owner_field: owner} | fields)
        return "ok"

    def change_once(self, table: str, key: str, changes: Mapping[str, Any]) -> str:
        """Change these fields of a record; refuses a field that was changed before."""
        self.save(table, key, change_once(self.read(table, key), f"{table.removesuffix('s')} {key}", changes))
        return "ok"

    def save(self, table: str, key: str, record: Record) -> None:
        self.store.put(table, key, record)
        owner = key if table == f"{self.owner_field.removesuffix('_id')}s" else str(record.get(self.owner_field, ""))
        self.writes.append(Write(table.rstrip("s"), key, owner))


ToolFunction = Callable[..., Any]


@dataclass(frozen=True)
class Tool:
    """A tool of a domain: what models see, and the function behind it."""

    spec: ToolSpec
    function: ToolFunction


def tool(
    klass: ToolClass, description: str, optional: tuple[str, ...] = (), **parameters: Mapping[str, Any]
) -> Callable[[ToolFunction], Tool]:
    """Make a function a tool; keyword arguments are its parameters as JSON Schema, required unless named in
    `optional`."""

    def wrap(function: ToolFunction) -> Tool:
        schema = {
            "type": "object",
            "properties": dict(parameters),
            "required": [name for name in parameters if name not in optional],
            "additionalProperties": False,
        }
        return Tool(ToolSpec(function.__name__, description, schema, klass), function)

    return wrap


def text(description: str, pattern: str = "") -> dict[str, Any]:
    """A string parameter."""
    return {"type": "string", "description": description} | ({"pattern": pattern} if pattern else {})


def four_digits(description: str) -> dict[str, Any]:
    """The number of a record."""
    return text(description, r"^[0-9]{4}$")


def integer(description: str, minimum: int, maximum: int) -> dict[str, Any]:
    """A whole number within bounds."""
    return {"type": "integer", "description": description, "minimum": minimum, "maximum": maximum}


def choice(description: str, options: tuple[str, ...]) -> dict[str, Any]:
    """One of a few strings."""
    return {"type": "string", "description": description, "enum": list(options)}


def nested(description: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    """An object with required fields and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def some_of(description: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    """An object with at least one of these fields and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(fields),
        "additionalProperties": False,
        "minProperties": 1,
    }


def one_of(*shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Exactly one of these objects."""
    return {"oneOf": list(shapes)}


PHONE, EMAIL = text("six digits", r"^[0-9]{6}$"), text("an email address", r"^\S+@\S+$")


def change_once(record: Record, whose: str, changes: Mapping[str, Any]) -> Record:
    """The record with these fields changed; refuses a field that was changed before."""
    changed = record.get("changed", [])
    for name in changes:
        if name in changed:
            raise Refusal(f"the {name} of {whose} was already changed once")
    return record | dict(changes) | {"changed": sorted([*changed, *changes])}


class StoreWorld:
    """A world over a store: the domain's tools, executed one at a time."""

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(self, base: Base, tools: Mapping[str, Tool], owner_field: str) -> None:
        self.store = Store(base)
        self._tools = tools
        self._owner_field = owner_field
        self.tools = tuple(t.spec for t in tools.values())

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        return self.run(call.name, call.arguments)

    def run(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Execute a tool; a refusal is an answer with ok=False."""
        desk = Desk(self.store, self._owner_field)
        try:
            answer = self._tools[name].function(desk, **arguments)
        except Refusal as refusal:
            return ToolResult(f"Error: {refusal}", ok=False)
        return ToolResult(answer if isinstance(answer, str) else json.dumps(answer), True, tuple(desk.writes))

    def fingerprint(self) -> str:
        return self.store.fingerprint()

    def close(self) -> None:
        """Nothing is held."""


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str) -> float:
    """The value of an arithmetic expression of numbers, + - * / and parentheses; raises `Refusal` for anything else."""
    if len(expression) > 200:
        raise Refusal("the expression is longer than 200 characters")
    try:
        value = _value(ast.parse(expression, mode="eval").body, depth=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Refusal("not an arithmetic expression") from None
    except ZeroDivisionError:
        raise Refusal("division by zero") from None
    if not abs(value) <= 1e15:  # so written that "not a number" (1e999 - 1e999) is refused as well
        raise Refusal("the result is too large")
    return round(value, 2)


def _value(node: ast.expr, depth: int) -> float:
    if depth > 20:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, depth + 1)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_value(node.left, depth + 1), _value(node.right, depth + 1)))
    raise ValueError("not arithmetic")


@tool(
    ToolClass.GENERIC,
    "Compute an arithmetic expression of numbers, + - * / and parentheses.",
    expression=text("for example 2 * (3 + 4)"),
)
def calculate(desk: Desk, expression: str) -> str:
    value = evaluate(expression)
    return str(int(value)) if value == int(value) else str(value)


@tool(ToolClass.GENERIC, "Write down a thought. Nobody sees it and nothing changes.", thought=text("the thought"))
def think(desk: Desk, thought: str) -> str:
    return "ok"


@tool(
    ToolClass.TERMINAL,
    "Hand the conversation over to a human. It ends the conversation.",
    summary=text("what the human needs to know"),
)
def transfer_to_human_agents(desk: Desk, summary: str) -> str:
    return "transferred"


COMMON = (calculate, think, transfer_to_human_agents)


def toolset(*tools: Tool) -> dict[str, Tool]:
    """A domain's tools by name, the three common ones last."""
    return {t.spec.name: t for t in (*tools, *COMMON)}
