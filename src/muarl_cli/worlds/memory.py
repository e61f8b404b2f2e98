"""The small database that a model answers from when it plays the tools, and the schema it conforms to.

The paper's pipeline A gives the tool model a minimal database as its memory. Here it is cut out of a scenario's tables
where there are some: the records that a task is about, the other records of the same owner, and a few of others.
Invariant: whatever is in a memory, and whatever a model changes in it, conforms to the schema.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

Tables = dict[str, dict[str, dict[str, Any]]]
SIMULATED = "simulated"
"""tag on an answer that a model gave in place of the tool"""
OTHERS = 3
"""records of each table that have nothing to do with the task: a tool model must find the right one"""
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def schema_of(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The JSON Schema that all records of the tables conform to: types of the fields, and which are always there."""
    return {
        "type": "object",
        "properties": {name: _table(list(records.values())) for name, records in tables.items()},
        "additionalProperties": False,
    }


def _table(records: list[Mapping[str, Any]]) -> dict[str, Any]:
    if not records:
        return {"type": "object", "additionalProperties": {"type": "object"}}
    fields = list(dict.fromkeys(name for record in records for name in record))
    types = {name: sorted({_type(r[name]) for r in records if name in r}) for name in fields}
    record = {
        "type": "object",
        "properties": {name: {"type": found[0] if len(found) == 1 else found} for name, found in types.items()},
        "required": [name for name in fields if all(name in r for r in records)],
    }
    return {"type": "object", "additionalProperties": record}


def _type(value: Any) -> str:
    return "null" if value is None else _TYPES[type(value)]


def problem(tables: Any, schema: Mapping[str, Any]) -> str:
    """Why these tables do not conform, "" where they do."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema).iter_errors(tables), key=lambda e: [str(p) for p in e.absolute_path])
    if not errors:
        return ""
    return f"{'.'.join(map(str, errors[0].absolute_path)) or 'the database'}: {errors[0].message[:200]}"


def cut(
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]], owner_field: str, values: Iterable[Any], seed: int
) -> Tables:
    """The part of a database that a task is about: records that its values name, those of their owners, those that
    these refer to by key, and `OTHERS` of each table."""
    wanted = {str(value) for value in values}
    rng = random.Random(seed)
    owners = {
        str(record.get(owner_field, ""))
        for records in tables.values()
        for key, record in records.items()
        if key in wanted
    } | wanted
    near = {
        table: {k: r for k, r in records.items() if k in wanted or str(r.get(owner_field, "")) in owners - {""}}
        for table, records in tables.items()
    }
    named = wanted | {
        str(v) for records in near.values() for r in records.values() for v in r.values() if isinstance(v, str)
    }
    memory: Tables = {}
    for table, records in tables.items():
        rest = [key for key in records if key not in near[table] and key not in named]
        chosen = set(near[table]) | (named & records.keys()) | set(rng.sample(rest, min(OTHERS, len(rest))))
        memory[table] = {key: json.loads(json.dumps(dict(records[key]))) for key in records if key in chosen}
    return memory


def leaves(value: Any) -> list[Any]:
    """The values inside nested objects and lists, in order."""
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]
