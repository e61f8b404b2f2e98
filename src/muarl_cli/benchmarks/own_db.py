"""Somebody else's small databases, parsed anew for each episode, read as one table of records.

Where a database is a few records, copying on write buys nothing: it is validated once an episode (about a millisecond)
and belongs to it. Invariant: equal states have equal fingerprints, whatever was read; a record is known by its table
and its first field, and where a field holds no list of records it is one record itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muarl_cli.benchmarks.shared_db import record_hash
from muarl_cli.hashing import digest

Place = tuple[str, str]


class OwnDB:
    """The databases of one episode: pydantic models whose fields are lists of records, or records."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts
        self._initial: dict[Place, Any] = {}
        self._hashes: dict[Place, int] = {}

    def settle(self) -> None:
        """What is there now is the initial state."""
        self._initial = self._dump()
        self._hashes = _hashes(self._initial)

    def touched(self) -> dict[Place, int]:
        """The hash of every record as it is now."""
        return _hashes(self._dump())

    def fingerprint(self) -> str:
        """Equal states have equal fingerprints."""
        return digest(sorted([*place, f"{value:x}"] for place, value in self.touched().items()), 64)

    def record(self, table: str, key: str) -> Any:
        """The record as it is now, or None."""
        return self._records().get((table, key))

    def changed(self, before: Mapping[Place, int]) -> list[Place]:
        """Places whose record differs from `before` (an earlier `touched()`; the initial state where that is empty)."""
        now, then = self.touched(), before or self._hashes
        return sorted(place for place in now.keys() | then.keys() if now.get(place) != then.get(place))

    def diff(self) -> list[dict[str, Any]]:
        """What differs from the initial state: a row a record with `table`, `id`, `before`, `after`, sorted."""
        now = self._dump()
        return [
            {"table": table, "id": key, "before": self._initial.get((table, key)), "after": now.get((table, key))}
            for table, key in self.changed({})
        ]

    def owner(self, table: str, key: str) -> str:
        """Whose a record is: the customer it names, or who names it; "" for what is nobody's, as the user's phone."""
        record = self.record(table, key)
        named = getattr(record, "customer_id", "")
        if named or not key:
            return str(named)
        holders = ((r, getattr(r, "line_ids", ())) for (name, _), r in self._records().items() if name == "customers")
        return next((str(holder.customer_id) for holder, lines in holders if key in lines), "")

    def _records(self) -> dict[Place, Any]:
        found: dict[Place, Any] = {}
        for part in self._parts:
            for name in type(part).model_fields:
                value = getattr(part, name)
                if isinstance(value, list):
                    found |= {(name, str(getattr(r, next(iter(type(r).model_fields))))): r for r in value}
                else:
                    found[name, ""] = value
        return found

    def _dump(self) -> dict[Place, Any]:
        return {place: record.model_dump(mode="json") for place, record in self._records().items()}


def _hashes(records: Mapping[Place, Any]) -> dict[Place, int]:
    return {place: record_hash(*place, record) for place, record in records.items()}
