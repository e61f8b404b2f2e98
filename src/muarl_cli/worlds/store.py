"""A copy-on-write state with an incremental fingerprint.

A store is a shared, never changed base (tables of records) plus the records this episode touched. Opening one costs
nothing, whatever the base holds; its fingerprint is the base's, corrected by what changed: the sum of the hashes of all
records modulo 2^256, so the order of writes and all reads leave it alone, and 25 equals 25.0.
"""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from muarl_cli.hashing import canonical_json

Record = dict[str, Any]
_MODULUS = 1 << 256
_LEAVES = frozenset({str, int, float, bool, type(None)})


def _copy(value: Any) -> Any:
    """A deep copy of a JSON value.

    Worlds read and write all the time, and `deepcopy` keeps books that JSON does not need.
    """
    kind = type(value)
    if kind is dict:
        return {key: own if type(own) in _LEAVES else _copy(own) for key, own in value.items()}
    if kind is list:
        return [own if type(own) in _LEAVES else _copy(own) for own in value]
    return value if kind in _LEAVES else copy.deepcopy(value)


def _record_hash(table: str, key: str, record: Mapping[str, Any]) -> int:
    return int.from_bytes(hashlib.sha256(f"{table}\0{key}\0{canonical_json(record)}".encode()).digest(), "big")


class Base:
    """The initial state: `tables[table][key]` is a record. Shared by all episodes; nobody may change it."""

    def __init__(self, tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        self.tables = tables
        self._hashes: dict[tuple[str, str], int] = {}
        self._indexes: dict[tuple[str, str], dict[Any, list[str]]] = {}
        self._places: dict[str, dict[str, int]] = {}
        self.total = 0
        for table, records in tables.items():
            for key, record in records.items():
                self._hashes[table, key] = value = _record_hash(table, key, record)
                self.total = (self.total + value) % _MODULUS

    def hash_of(self, table: str, key: str) -> int:
        return self._hashes.get((table, key), 0)

    def keys_with(self, table: str, name: str, value: Any) -> Sequence[str]:
        """Keys of the records whose field has this value, in order; the first question about a field makes its index.
        Values must be hashable."""
        if (table, name) not in self._indexes:
            index = self._indexes[table, name] = defaultdict(list)
            for key, record in self.tables.get(table, {}).items():
                index[record.get(name)].append(key)
        return self._indexes[table, name].get(value, ())

    def in_order(self, table: str, keys: Iterable[str]) -> list[str]:
        """These keys of the table as it has them."""
        if table not in self._places:
            self._places[table] = {key: place for place, key in enumerate(self.tables.get(table, {}))}
        return sorted(keys, key=self._places[table].__getitem__)


class Store:
    """One episode's view of a base. `get` returns a private copy; only `put` and `delete` change anything."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._own: dict[tuple[str, str], Record | None] = {}

    def get(self, table: str, key: str) -> Record | None:
        """A copy of the record, or None."""
        if (table, key) in self._own:
            return _copy(self._own[table, key])
        record = self._base.tables.get(table, {}).get(key)
        return _copy(dict(record)) if record is not None else None

    def put(self, table: str, key: str, record: Record) -> None:
        self._own[table, key] = _copy(record)

    def delete(self, table: str, key: str) -> None:
        self._own[table, key] = None

    def items(self, table: str) -> Iterator[tuple[str, Record]]:
        """All records of a table as copies, base order first, then new ones."""
        base = self._base.tables.get(table, {})
        for key in base:
            record = self.get(table, key)
            if record is not None:
                yield key, record
        for (own_table, key), own in list(self._own.items()):
            if own_table == table and key not in base and own is not None:
                yield key, _copy(own)

    def find(self, table: str, fields: Mapping[str, Any]) -> list[tuple[str, Record]]:
        """Copies of the records whose fields have these values (at least one is asked for), in the order of `items`;
        only these are copied, and no others are looked at."""
        base = self._base.tables.get(table, {})
        own = {key: record for (own_table, key), record in self._own.items() if own_table == table}
        name, value = next(iter(fields.items()))
        keys = self._base.keys_with(table, name, value)
        if own:
            keys = self._base.in_order(table, {*keys, *(key for key in own if key in base)})
            keys += [key for key in own if key not in base]
        rows = [(key, own[key] if key in own else base[key]) for key in keys]
        return [
            (key, _copy(dict(record)))
            for key, record in rows
            if record is not None and all(record.get(name) == value for name, value in fields.items())
        ]

    def fingerprint(self) -> str:
        """Hex SHA-256-sized sum over all records; costs what was touched, not what is held."""
        total = self._base.total
        for (table, key), record in self._own.items():
            total -= self._base.hash_of(table, key)
            if record is not None:
                total += _record_hash(table, key, record)
        return f"{total % _MODULUS:064x}"

    def diff(self) -> list[dict[str, Any]]:
        """What changed against the base: a row a record, sorted, for explanations."""
        rows = []
        for (table, key), after in sorted(self._own.items()):
            before = self._base.tables.get(table, {}).get(key)
            if before is None and after is None:
                continue
            if before is not None and after is not None and canonical_json(before) == canonical_json(after):
                continue
            rows.append({"table": table, "id": key, "before": before, "after": after})
        return rows
