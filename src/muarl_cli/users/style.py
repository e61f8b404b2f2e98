"""How users talk, in numbers: words a turn, variety of words, likeness of openings, share copied from the brief.

Invariant: every number depends on the texts as a multiset and on nothing else; where there is nothing to measure the
answer is None, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

_WORD = re.compile(r"[\w'@.-]*\w", re.UNICODE)
WINDOW = 50
COPY = 6
"""words in a row that count as copied"""
TRIALS = 64
"""openings of one task that are compared with each other, at most"""


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def mattr(words: Sequence[str], window: int = WINDOW) -> float | None:
    """Moving-average type-token ratio: the mean share of distinct words in every window; of the whole where it is
    shorter than one."""
    if not words:
        return None
    if len(words) <= window:
        return len(set(words)) / len(words)
    shares = [len(set(words[i : i + window])) / window for i in range(len(words) - window + 1)]
    return sum(shares) / len(shares)


def copied(instruction: str, said: Sequence[str]) -> float | None:
    """Share of the instruction's six-word sequences that the user says."""
    wanted = _grams(words_of(instruction))
    if not wanted:
        return None
    seen = set().union(*(_grams(words_of(text)) for text in said)) if said else set()
    return len(wanted & seen) / len(wanted)


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + COPY]) for i in range(len(words) - COPY + 1)}


def likeness(openings: Mapping[str, Sequence[str]]) -> tuple[float | None, float | None]:
    """(mean Jaccard overlap of words, share of identical pairs) over pairs of openings of the same task."""
    overlaps, equal = [], []
    for texts in openings.values():
        for one, other in combinations(sorted(texts)[:TRIALS], 2):
            a, b = set(words_of(one)), set(words_of(other))
            overlaps.append(len(a & b) / len(a | b) if a | b else 1.0)
            equal.append(one.strip() == other.strip())
    if not overlaps:
        return None, None
    return sum(overlaps) / len(overlaps), sum(equal) / len(equal)
