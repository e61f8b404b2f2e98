"""Whatever an agent calls, within a tool's schema, is answered or refused: a tool that crashes would end the episode as
a fault, and an agent that is about to lose could make it not count."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.memory import leaves

WORLDS, CALLS = 30, 150


class Caller:
    """Makes up arguments about one person of the domain: their records, some of others, and values that occur there."""

    def __init__(self, domain: Domain, tables: Mapping[str, Mapping[str, Any]], rng: random.Random) -> None:
        self.rng = rng
        owner = rng.choice(list(next(iter(tables.values()))))
        field = domain._module.OWNER
        own = [key for records in tables.values() for key, record in records.items() if record.get(field) == owner]
        keys = [key for records in tables.values() for key in records]
        self.ids = rng.sample(keys, 12) + [owner] * 6 + own
        held = {str(v) for t in tables.values() for k, r in t.items() if k in (owner, *own) for v in leaves(r)}
        self.texts = sorted(held | {key for key in keys if not key.isdigit()})

    def value(self, schema: Mapping[str, Any]) -> Any:
        rng = self.rng
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "oneOf" in schema:
            return self.value(rng.choice(schema["oneOf"]))
        if schema["type"] == "object":
            fields, needed = schema["properties"], schema.get("required", ())
            chosen = [name for name in fields if name in needed or rng.random() < 0.6] or list(fields)[:1]
            return {name: self.value(fields[name]) for name in chosen}
        if schema["type"] == "integer":
            return rng.randint(schema["minimum"], schema["maximum"])
        return self.text(schema.get("pattern", ""))

    def text(self, pattern: str) -> str:
        if pattern.endswith("{4}$"):
            return self.rng.choice(self.ids)
        if pattern.endswith("{6}$"):
            return "123456"
        if "@" in pattern:
            return "a@b.c"
        if pattern:  # a day
            return f"2026-{self.rng.randint(0, 19):02}-{self.rng.randint(0, 39):02}"
        return self.rng.choice(self.texts)


@pytest.mark.parametrize("name", BUILTIN)
def test_no_call_that_the_schema_allows_crashes_a_tool(name: str) -> None:
    from jsonschema import Draft202012Validator

    domain, rng = builtin(name), random.Random(name)
    task, tables = domain.tasks("dev")[0], domain._tables
    checks = {tool.name: Draft202012Validator(tool.parameters) for tool in domain.tools}
    done: Counter[tuple[str, bool]] = Counter()
    for _ in range(WORLDS):
        world, caller = domain.world(task), Caller(domain, tables, rng)
        for _ in range(CALLS):
            tool = rng.choice(domain.tools)
            arguments = caller.value(tool.parameters)
            if checks[tool.name].is_valid(arguments):
                done[tool.name, world.run(tool.name, arguments).ok] += 1
    reached = [tool.name for tool in domain.tools if done[tool.name, True]]
    assert len(reached) >= len(domain.tools) - 4, "calls that are nearly all refused would show nothing"
