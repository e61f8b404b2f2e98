"""Strict JSON, for files that others may have written.

Invariant: whatever the bytes, parsing ends in a value or in a `ValueError` with one short sentence: no NaN or infinity,
no duplicate keys, no recursion error, nothing deeper than `MAX_DEPTH` or longer than the caller allows.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
_LEAVES = frozenset({str, int, float, bool, type(None)})


def loads(data: bytes | str, max_bytes: int) -> Any:
    """Parse one JSON value; raises ValueError."""
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes; at most {max_bytes} are read")
    try:
        value = json.loads(data, parse_constant=_constant, parse_float=_float, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason}") from None
    check_depth(value)
    return value


def dumps(value: Any) -> str:
    """One line, ASCII only, key order kept; raises ValueError for NaN, too deep a value, or what JSON cannot hold."""
    try:
        check_depth(value)
        return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def check_depth(value: Any) -> None:
    """Raises ValueError where containers are nested deeper than `MAX_DEPTH`."""
    layer = [value] if isinstance(value, (dict, list, tuple)) else []
    depth = 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        layer = [
            child
            for parent in layer
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if type(child) not in _LEAVES and isinstance(child, (dict, list, tuple))
        ]


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:40]!r} occurs twice")
    return value
