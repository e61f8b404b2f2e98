"""JSON that is sent again and again: each part of a request becomes text once.

A conversation's request holds every message so far and all tools, so writing it anew each turn costs the square of its
length. Invariant: `encoded(body)` is exactly `json.dumps(body, ensure_ascii=False, separators=(",", ":"))`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Written(dict[str, Any]):
    """A JSON object that nobody changes any more, so that its text is made once."""

    @cached_property
    def text(self) -> str:
        """Its JSON."""
        return _write(self)


def encoded(body: Mapping[str, Any]) -> bytes:
    """A request's bytes; what is `Written` in its lists is not written again. Raises ValueError for NaN."""
    parts = (
        f"{_write(name)}:{_listed(value) if type(value) is list else _write(value)}" for name, value in body.items()
    )
    return f"{{{','.join(parts)}}}".encode()


def _listed(items: list[Any]) -> str:
    texts = (item.text if isinstance(item, Written) else _write(item) for item in items)
    return f"[{','.join(texts)}]"
