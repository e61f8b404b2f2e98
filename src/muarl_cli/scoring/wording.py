"""Shared wording of tasks: n-grams of words with the values masked, boilerplate taken out.

Two benchmarks can hold the same task in almost the same words while every hash differs. This measure reports it; it
never refuses, since tasks of one family are worded alike. Invariant: names, numbers and ids of a task never count, nor
does text that three or more tasks of one side share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

GRAM = 8
"""words; shorter runs are shared by tasks that have nothing else in common"""
BOILERPLATE = 3
"""text shared by this many tasks of one side belongs to none of them"""
ALIKE = 0.5
"""share of a task's n-grams from which it counts as worded alike"""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[#@]\S+", re.UNICODE)
_VALUE = re.compile(r"\d|[@#]")
MASK = "…"


@dataclass(frozen=True)
class Alike:
    """A task and the one of the other side that shares most of its wording."""

    task: str
    other: str
    share: float
    """of the task's n-grams, boilerplate taken out"""


def masked(text: str, values: Collection[str] = ()) -> tuple[str, ...]:
    """The words of a text in small letters; numbers, ids, and words that occur in `values` are masked."""
    hidden = {word.lower() for value in values for word in _WORD.findall(value)}
    words = [word.lower() for word in _WORD.findall(text)]
    return tuple(MASK if word in hidden or _VALUE.search(word) else word for word in words)


def grams(words: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """The n-grams of a text; a text shorter than one is itself one."""
    if len(words) <= GRAM:
        return frozenset({words}) if words else frozenset()
    return frozenset(words[i : i + GRAM] for i in range(len(words) - GRAM + 1))


def alike(
    one: Mapping[str, frozenset[tuple[str, ...]]], other: Mapping[str, frozenset[tuple[str, ...]]]
) -> list[Alike]:
    """Tasks of `other` of whose n-grams at least `ALIKE` occur in one task of `one`, most shared first."""
    common = _boilerplate(one) | _boilerplate(other)
    holders: dict[tuple[str, ...], list[str]] = {}
    for name, held in one.items():
        for gram in held - common:
            holders.setdefault(gram, []).append(name)
    found = []
    for name, held in other.items():
        own = held - common
        counts = Counter(holder for gram in own for holder in holders.get(gram, ()))
        if counts:
            best, shared = min(counts.items(), key=lambda item: (-item[1], item[0]))
            if shared / len(own) >= ALIKE:
                found.append(Alike(name, best, shared / len(own)))
    return sorted(found, key=lambda row: (-row.share, row.task))


def _boilerplate(side: Mapping[str, frozenset[tuple[str, ...]]]) -> frozenset[tuple[str, ...]]:
    counts = Counter(gram for held in side.values() for gram in held)
    return frozenset(gram for gram, n in counts.items() if n >= BOILERPLATE)
