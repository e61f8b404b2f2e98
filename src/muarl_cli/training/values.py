"""A value that a call gives as bare text, read by the JSON Schema of its parameter.

Invariant: nothing is guessed from the looks of a text alone. Where the schema wants a string the text is the value,
also where it looks like a number; where it wants another kind the text is read as JSON, or by the template's own
spelling of true, false and null; a text that is neither stays text, so that the world's own check names the parameter
and what it expects. Where the schema allows both, or nothing is known of the parameter, JSON of another kind than
string comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muarl_cli.conversation.tools import parse_json

ANY = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
_DEPTH = 8
"""references and alternatives are followed this deep"""


def kind_of(value: Any) -> str:
    """The JSON kind of a value; whole numbers are integers."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
        case _:
            return "object" if isinstance(value, Mapping) else "array"


def kinds_of(schema: Any, root: Mapping[str, Any], depth: int = _DEPTH) -> frozenset[str]:
    """The kinds that a schema allows; all of them where it does not say. `root` is what its references are in."""
    if not isinstance(schema, Mapping) or not depth:
        return ANY
    found = _typed(schema.get("type"))
    if "const" in schema:
        found &= {kind_of(schema["const"])}
    if isinstance(schema.get("enum"), list):
        found &= {kind_of(value) for value in schema["enum"]}
    if isinstance(schema.get("$ref"), str):
        found &= kinds_of(_pointed(schema["$ref"], root), root, depth - 1)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            found &= frozenset().union(*(kinds_of(each, root, depth - 1) for each in schema[word]))
    for each in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
        found &= kinds_of(each, root, depth - 1)
    return found


def _typed(named: Any) -> frozenset[str]:
    names = named if isinstance(named, list) else [named]
    if not all(isinstance(name, str) and name in ANY for name in names):
        return ANY
    return frozenset(names) | ({"integer"} if "number" in names else frozenset())


def _pointed(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference within the schema points to; None where there is nothing."""
    node: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def read_value(text: str, kinds: frozenset[str], spelt: Mapping[str, Any]) -> Any:
    """The value that `text` means where these kinds are allowed. `spelt` are the template's own words for true, false
    and null where it does not write JSON's."""
    if kinds == {"string"}:
        return text
    word = text.strip()
    if word in spelt and kind_of(spelt[word]) in kinds:
        return spelt[word]
    value, problem = parse_json(text)
    if problem or isinstance(value, str) or ("string" in kinds and kind_of(value) not in kinds):
        return text
    return value
