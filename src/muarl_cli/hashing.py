"""Canonical JSON and the hashes built on it.

Invariant: two values that mean the same have the same canonical text. Key order never matters, and 25 equals 25.0;
NaN and infinities are refused, since they would make a stored hash meaningless.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

_PLAIN = frozenset({str, int, bool, type(None)})


def canonical(value: Any) -> Any:
    """A JSON value in which equal meanings are equal objects: integral floats become ints, tuples become lists."""
    if type(value) in _PLAIN or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical JSON form")
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):  # most of what a log holds is plain, and a call for each costs more than all the rest
        return {str(k): v if type(v) in _PLAIN else canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [v if type(v) in _PLAIN else canonical(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no blanks, ASCII only."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """Hex SHA-256 of the canonical JSON of `value`, cut to `length` hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed that depends on all `parts` and on nothing else, for independent random streams."""
    return int(digest(list(parts), 16), 16) >> 1
