"""The typed values in a text: e-mail addresses, dates, times, numbers, ids.

Two texts give the same fact where they mean the same: "$1,093.50" and 1093.5, "May 3rd" and 2025-05-03, "2:30 pm" and
14:30, "#W-12ab" and w12ab. Invariant: a text without a digit and without an e-mail address has no facts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from muarl_cli.scoring.values import numbers

_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_MONTHS = {name: n for n, name in enumerate(_NAMES.split("|"), 1)}
_MONTH = rf"({_NAMES})[a-z]*\.?"
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_ISO = re.compile(r"(?<!\d)(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?!\d)")
_SLASHED = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})(?:/(\d{4}))?(?![\d/])")
_NAMED = re.compile(rf"\b{_MONTH} (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?\b")
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? (\d{{4}}))?\b")
_TIME = re.compile(
    r"(?<![\d:])(\d{1,2})(?::(\d{2}))?(?::\d{2})? ?([ap])\.?m\b|(?<![\d:])(\d{1,2}):(\d{2})(?::\d{2})?(?!\d)"
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?[$€£]? ?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:%|[a-z]{1,2}\b|-[a-z]{3,})?(?![\w@])")
_CODE = re.compile(r"#?\b(?=[\w/-]*\d)(?=[\w/-]*[^\W\d])\w+(?:[-/]\w+)*|#\d+\b")
_COUNTED = re.compile(r"\d+(?:\.\d+)?(?:-[a-z]{3,}|[a-z]{1,2})")
"""a number with its unit ("14-day", "256gb", "3rd"), which is no id"""
_CELL = r"([a-z]{1,3})(\d{1,7})"
_RANGE = re.compile(rf"(?<!\w){_CELL}:{_CELL}(?!\w)")
_CLOCK = re.compile(r"(?<=\d)t(?=\d{2}:)")

Date = tuple[int | None, int, int]
Cell = tuple[int, str, int]
"""letters of the column, their number first (so that z is before aa), and the row"""


@dataclass(frozen=True)
class Facts:
    """The facts of one text."""

    emails: frozenset[str]
    dates: frozenset[Date]
    """(year or None, month, day)"""
    times: frozenset[tuple[int, int]]
    numbers: frozenset[float]
    ids: frozenset[str]
    """letters and digits together, without separators, in lower case"""
    ranges: frozenset[tuple[Cell, Cell]]
    """of a sheet, from cell to cell"""


@lru_cache(maxsize=8192)
def facts(text: str) -> Facts:
    """All facts of a text; see the module."""
    rest = _CLOCK.sub(" ", text.lower())
    emails = frozenset(_EMAIL.findall(rest))
    rest = _EMAIL.sub(" ", rest)
    dates: set[Date] = set()
    for pattern, order in ((_ISO, "ymd"), (_NAMED, "mdy"), (_DAY_FIRST, "dmy"), (_SLASHED, "mdy")):
        dates |= {date for found in pattern.findall(rest) if (date := _date(dict(zip(order, found, strict=True))))}
        rest = pattern.sub(" ", rest)
    times = frozenset(_time(found) for found in _TIME.findall(rest))
    rest = _TIME.sub(" ", rest)
    codes = [code for code in _CODE.findall(rest) if not _COUNTED.fullmatch(code)]
    rest = _CODE.sub(lambda code: code.group() if _COUNTED.fullmatch(code.group()) else " ", rest)
    figures = {float((whole + part).replace(",", "")) for whole, part in _NUMBER.findall(rest)}
    ids = frozenset(re.sub(r"[#_/-]", "", code) for code in codes)
    ranges = frozenset((_cell(a, b), _cell(c, d)) for a, b, c, d in _RANGE.findall(text.lower()))
    return Facts(emails, frozenset(dates), times, frozenset(figures), ids, ranges)


def unknown(words: str, known: str, given: str) -> list[str]:
    """The facts of `words` that stand neither in `known` (what was said and read) nor in `given` (policy and tools).

    Whole numbers up to twelve are counts and list markers, and pass; so does the tail of a known id ("ending in 4821"),
    a name made of a known id and a word ("backup-release-2"), a cell inside a range that was read, a date without its
    year, and a number that was said in words.
    """
    own, said, fixed = facts(words), _of_lines(known), facts(given)
    missing = [email for email in own.emails if email not in said.emails | fixed.emails]
    dates = said.dates | fixed.dates
    missing += [_shown(date) for date in own.dates if not any(_same(date, other) for other in dates)]
    missing += [f"{h}:{m:02}" for h, m in own.times if (h, m) not in said.times | fixed.times]
    codes = said.ids | fixed.ids
    figures = said.numbers | fixed.numbers
    figures |= {float(part) for date in dates for part in date if part} | {float(h) for h, _ in said.times}
    spoken: frozenset[float] | None = None
    for figure in own.numbers:
        if (figure.is_integer() and figure <= 12) or figure in figures:
            continue
        spoken = numbers(known.lower()) if spoken is None else spoken
        if figure not in spoken and not _is_part(f"{figure:.15g}", codes | {f"{f:.15g}" for f in figures}):
            missing.append(f"{figure:.15g}")
    ranges = said.ranges | fixed.ranges
    missing += [
        code
        for code in own.ids
        if code not in codes and not (_is_part(code, codes) or _is_named_after(code, codes) or _is_inside(code, ranges))
    ]
    return sorted(missing)


def _of_lines(text: str) -> Facts:
    """The facts of a text, line by line: none goes over a line's end, and what is known grows by a line at a time."""
    each = [facts(line) for line in text.split("\n")]
    return Facts(*(frozenset().union(*(getattr(one, name) for one in each)) for name in Facts.__dataclass_fields__))


def _is_part(code: str, codes: frozenset[str]) -> bool:
    return len(code) >= 4 and any(other.endswith(code) for other in codes)


def _is_named_after(code: str, codes: frozenset[str]) -> bool:
    """A known id behind or before a word of its own."""
    return any(
        len(known) >= 4 and len(word := code.removesuffix(known).removeprefix(known)) >= 3 and word.isalpha()
        for known in codes
        if known in code
    )


def _is_inside(code: str, ranges: frozenset[tuple[Cell, Cell]]) -> bool:
    if (found := re.fullmatch(_CELL, code)) is None:
        return False
    cell = _cell(*found.groups())
    return any(a[:2] <= cell[:2] <= b[:2] and a[2] <= cell[2] <= b[2] for a, b in ranges)


def _cell(column: str, row: str) -> Cell:
    return len(column), column, int(row)


def _date(parts: dict[str, str]) -> Date | None:
    month = _MONTHS.get(parts["m"]) or (int(parts["m"]) if parts["m"].isdigit() else 0)
    day = int(parts["d"])
    return (int(parts["y"]) if parts["y"] else None, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None


def _same(one: Date, other: Date) -> bool:
    return one[1:] == other[1:] and (one[0] == other[0] or None in (one[0], other[0]))


def _time(found: tuple[str, ...]) -> tuple[int, int]:
    hour, minute, half, plain, minutes = found
    if plain:
        return int(plain), int(minutes)
    return int(hour) % 12 + (12 if half == "p" else 0), int(minute or 0)


def _shown(date: Date) -> str:
    year, month, day = date
    return f"{year}-{month:02}-{day:02}" if year else f"{month:02}-{day:02}"
