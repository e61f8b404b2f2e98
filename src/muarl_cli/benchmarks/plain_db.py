"""Somebody else's database of plain records: tables that map an id to a JSON object, and code that changes it in place.

Code that iterates and changes what it finds cannot share records between episodes, so each episode parses a database of
its own (two milliseconds for TAU2's bank) and hashes only what differs from the one all episodes start from. Invariant:
equal states have equal fingerprints, whatever was read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from muarl_cli.benchmarks.own_db import OwnDB, Place
from muarl_cli.benchmarks.shared_db import record_hash

_OWNERS = ("user_id", "referrer_id")
_ACCOUNTS = "accounts"


class RecordsBase:
    """What every episode starts from. `db_model` is the package's class, whose fields have their records in `data`;
    the tables in `unseen` are no part of the state."""

    def __init__(self, db_model: Any, raw: Mapping[str, Any], unseen: Collection[str] = ()) -> None:
        self._model, self._text = db_model, json.dumps(raw)
        self.tables = tuple(name for name in db_model.model_fields if name not in unseen)

    def fresh(self) -> PlainDB:
        """A database of an episode's own."""
        return PlainDB(self._model.model_validate(json.loads(self._text)), self)

    @cached_property
    def records(self) -> dict[Place, dict[str, Any]]:
        return self.fresh().records()

    @cached_property
    def hashes(self) -> dict[Place, int]:
        return {place: record_hash(*place, record) for place, record in self.records.items()}


class PlainDB(OwnDB):
    """The database of one episode; `db` is the package's object."""

    def __init__(self, db: Any, base: RecordsBase) -> None:
        super().__init__(db)
        self.db, self._base = db, base

    def merge(self, tables: Mapping[str, Any]) -> None:
        """Put a task's own records in, field by field; raises `ValueError` for a table that is not there."""
        for name, table in tables.items():
            if name not in type(self.db).model_fields:
                raise ValueError(f"the database has no table {name!r}")
            _merge(getattr(self.db, name).data, table.get("data", table))

    def touched(self) -> dict[Place, int]:
        known, hashes = self._base.records, self._base.hashes
        return {
            place: hashes[place] if record == known.get(place) else record_hash(*place, record)
            for place, record in self._records().items()
        }

    def settle(self) -> None:
        self._initial, self._hashes = self._dump(), self.touched()

    def owner(self, table: str, key: str) -> str:
        """Whose a record is: the customer whom it, or the account it belongs to, names; "" for what is nobody's."""
        record = self.record(table, key) or {}
        account = self.record(_ACCOUNTS, str(record.get("account_id", ""))) or {}
        named = (holder[name] for holder in (record, account) for name in _OWNERS if holder.get(name))
        return str(next(named, ""))

    def records(self) -> dict[Place, dict[str, Any]]:
        """Every record of the state by its table and id."""
        return {
            (name, key): record for name in self._base.tables for key, record in getattr(self.db, name).data.items()
        }

    def _records(self) -> dict[Place, Any]:
        return self.records()

    def _dump(self) -> dict[Place, Any]:
        return {place: json.loads(json.dumps(record)) for place, record in self._records().items()}


def _merge(into: dict[str, Any], news: Mapping[str, Any]) -> None:
    for key, value in news.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = json.loads(json.dumps(value))
