"""Somebody else's database objects, copy-on-write: one parsed base for all episodes, private records where one looks.

A toolkit indexes `db.orders[order_id]` and changes what it gets. Here a keyed access hands out a private copy (made
from the raw JSON on first access), and iteration hands out private copies where there are any and the shared records
elsewhere. Invariant: the base never changes. The one way to break it is a tool that changes a record found by
*iterating*; no tool of the supported domains does, and `Base.digest` lets tests prove it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from muarl_cli.hashing import canonical_json, digest

_MODULUS = 1 << 256


def record_hash(table: str, key: str, record: Mapping[str, Any]) -> int:
    """A number below 2^256 that depends on the record's place and meaning."""
    return int.from_bytes(hashlib.sha256(f"{table}\0{key}\0{canonical_json(record)}".encode()).digest(), "big")


class Base:
    """A parsed database: `raw[table][key]` as JSON values, `models[table][key]` as the package's pydantic records.

    `db_model` is the package's database class; its fields that are mappings of records become tables.
    """

    def __init__(self, db_model: Any, raw: Mapping[str, Any]) -> None:
        parsed = db_model.model_validate(raw)
        self.models: dict[str, Mapping[str, Any]] = {}
        for name in db_model.model_fields:
            value = getattr(parsed, name)
            if not isinstance(value, Mapping):
                raise TypeError(f"{db_model.__name__}.{name} is no table of records")
            self.models[name] = value
        self.raw: dict[str, dict[str, Any]] = {name: dict(raw.get(name, {})) for name in self.models}
        self.hash = int(digest(dict(raw), 64), 16)
        self._hashes: dict[tuple[str, str], int] = {}

    def fresh(self, table: str, key: str) -> Any:
        """A private copy of a record, as a model; validating the raw JSON is several times faster than a deep copy."""
        return type(self.models[table][key]).model_validate(self.raw[table][key])

    def dump(self, table: str, key: str) -> dict[str, Any] | None:
        """The base record as JSON values with all its defaults, or None."""
        model = self.models[table].get(key)
        return model.model_dump() if model is not None else None

    def hash_of(self, table: str, key: str) -> int:
        """The hash of a base record (0 where there is none), computed once."""
        place = (table, key)
        if place not in self._hashes:
            record = self.dump(table, key)
            self._hashes[place] = 0 if record is None else record_hash(table, key, record)
        return self._hashes[place]

    def digest(self) -> str:
        """A hash of everything in the base as it is now, recomputed: equal before and after means nobody changed it."""
        return digest(
            [[t, k, m.model_dump(), self.raw[t][k]] for t in self.models for k, m in self.models[t].items()], 64
        )


class Table(MutableMapping[str, Any]):
    """One episode's view of one table, in the base's order, new records last."""

    def __init__(self, base: Base, name: str) -> None:
        self._base, self.name = base, name
        self._shared = base.models[name]
        self.own: dict[str, Any] = {}
        """records this episode has looked at, created or (None) deleted"""

    def __getitem__(self, key: str) -> Any:
        if key not in self.own:
            if key not in self._shared:
                raise KeyError(key)
            self.own[key] = self._base.fresh(self.name, key)
        record = self.own[key]
        if record is None:
            raise KeyError(key)
        return record

    def __setitem__(self, key: str, record: Any) -> None:
        self.own[key] = record

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.own[key] = None

    def __contains__(self, key: object) -> bool:
        if key in self.own:
            return self.own[key] is not None  # type: ignore[index]
        return key in self._shared

    def __iter__(self) -> Iterator[str]:
        for key in self._shared:
            if self.own.get(key, self) is not None:
                yield key
        for key, record in list(self.own.items()):
            if key not in self._shared and record is not None:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> Any:
        """Pairs without making private copies of what is only passed by."""
        return [(key, self.own[key] if key in self.own else self._shared[key]) for key in self]

    def values(self) -> Any:
        return [record for _, record in self.items()]


class View:
    """One episode's database: an attribute a table, as the package's toolkit expects of its `db`."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._tables = {name: Table(base, name) for name in base.models}
        for name, table in self._tables.items():
            setattr(self, name, table)

    def touched(self) -> dict[tuple[str, str], int]:
        """The hash of every record this episode has looked at, as it is now (0 for a deleted one)."""
        return {
            (name, key): 0 if record is None else record_hash(name, key, record.model_dump())
            for name, table in self._tables.items()
            for key, record in table.own.items()
        }

    def fingerprint(self) -> str:
        """Equal states have equal fingerprints, whatever was read; costs what was touched, not what is held."""
        total = self._base.hash
        for (table, key), now in self.touched().items():
            total += now - self._base.hash_of(table, key)
        return f"{total % _MODULUS:064x}"

    def record(self, table: str, key: str) -> Any:
        """The record as it is now (shared or private), or None; never makes a copy."""
        own = self._tables[table].own
        return own[key] if key in own else self._base.models[table].get(key)

    def owner(self, table: str, key: str) -> str:
        """Whose a record is, "" for what is nobody's."""
        return str(getattr(self.record(table, key), "user_id", "") or "")

    def changed(self, before: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
        """Places whose record differs from `before` (an earlier `touched()`; the base for what was untouched then)."""
        now = self.touched()
        return sorted(place for place in now if now[place] != before.get(place, self._base.hash_of(*place)))

    def diff(self) -> list[dict[str, Any]]:
        """What differs from the base: a row a record with `table`, `id`, `before`, `after`, sorted."""
        rows = []
        for table, key in self.changed({}):
            after = self.record(table, key)
            dump = after.model_dump() if after is not None else None
            rows.append({"table": table, "id": key, "before": self._base.dump(table, key), "after": dump})
        return rows
