"""How a number is written, once: `0.72 [0.66, 0.78]`, `+0.12 [+0.05, +0.19]`, `8.0 %`, `–` for nothing to measure.

Invariant: tables, Markdown and evidence rows all go through these functions, so the same figure never reads two ways.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NOTHING = "–"


def decimal(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A plain number; never "-0.00"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    zero = f"{0.0:{'+' if signed else ''}.{digits}f}"
    return zero if float(text) == 0.0 else text


def percent(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{decimal(100 * value, digits)} %"


def interval(value: Any, digits: int = 2, signed: bool = False) -> str:
    """`mean [low, high]` of an object or mapping with these three; `–` for None."""
    parts = value if isinstance(value, Mapping) or value is None else vars(value)
    if parts is None or parts.get("mean") is None:
        return NOTHING
    mean, low, high = (decimal(parts[name], digits, signed) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: object) -> str:
    """Untrusted text for a page: control, direction and zero-width characters are written out (`⟨U+202E⟩`), so that
    what is read is what was written; newlines and tabs stay."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", str(text).replace("\r\n", "\n"))


def plain(text: str) -> str:
    """Untrusted text made safe for a terminal: control characters become spaces, nothing else changes."""
    return "".join(char if char.isprintable() else " " for char in text)
