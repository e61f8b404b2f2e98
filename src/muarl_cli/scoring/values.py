"""Whether a text names a value: typed, on whole words, and not under a negation.

"$1,093.34" names 1093.34, "a week" names 7 days where days are meant, "two" names 2; "order 4821" does not name 2, and
"it is not blue" does not name blue. Invariant: values are looked up in texts, never the other way round, so a text that
lists every answer is caught by counting how many candidates it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_NUMBER = re.compile(r"(?<![\w.#@-])\$?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?=(?:[kmgt]b|kg|km|cm|mm)?(?![\w@]))")
_NAMES = "zero one two three four five six seven eight nine ten eleven twelve"
_WORDS = {word: float(n) for n, word in enumerate(_NAMES.split(" "))}
_WORD_NUMBER = re.compile(r"\b(" + "|".join(_WORDS) + r")\b")
_DURATION = re.compile(r"(?<!\w)(a|an|one|two|three|four|\d+)[ -](week|fortnight|day|month)s?\b")
_DAYS = {"day": 1, "week": 7, "fortnight": 14, "month": 30}
_NEGATION = re.compile(
    r"\b(not|no|never|without|n't|cannot|neither|nor|isn't|wasn't|aren't|won't|can't|couldn't|didn't|instead of"
    r"|rather than|unable)\b|n't\b",
)
_CLAUSE = re.compile(r"[.;!?\n]+(?=\s|$)|,? but |,? however |: ")
_NUMERIC = re.compile(r"\$?\d+(,\d{3})*\.\d+")


def names(value: Any, text: str) -> bool:
    """Whether the text names the value. `text` may have any case."""
    low = text.lower()
    if isinstance(value, bool) or value is None:
        return whole(str(value).lower(), low)
    if isinstance(value, (int, float)):
        return float(value) in numbers(low)
    phrase = " ".join(str(value).lower().split())
    if _NUMERIC.fullmatch(phrase):
        return float(phrase.replace("$", "").replace(",", "")) in numbers(low)
    return bool(phrase) and (whole(phrase, low) or ("_" in phrase and whole(phrase.replace("_", " "), low)))


def whole(phrase: str, low: str) -> bool:
    """Whether the phrase stands in the lower-case text as whole words; "2" is not in "order 4821"."""
    start = low.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        before, after = low[start - 1 : start], low[end : end + 1]
        if not (_inside(before) or _inside(after)) and not (
            phrase[-1].isdigit() and after in (".", ",") and low[end + 1 : end + 2].isdigit()
        ):
            return True
        start = low.find(phrase, start + 1)
    return False


def _inside(char: str) -> bool:
    return char.isalnum() or char in ("_", "@") if char else False


@lru_cache(maxsize=4096)
def numbers(low: str) -> frozenset[float]:
    """All numbers a lower-case text names, figures, words and durations in days."""
    found = {float((a + b).replace(",", "")) for a, b in _NUMBER.findall(low)}
    found |= {_WORDS[word] for word in _WORD_NUMBER.findall(low)}
    for count, unit in _DURATION.findall(low):
        n = {"a": 1.0, "an": 1.0}.get(count) or _WORDS.get(count) or float(count)
        found.add(n * _DAYS[unit])
    return frozenset(found)


def clauses(text: str) -> list[str]:
    """The text cut where a negation stops to reach: sentence ends, "but", colons."""
    return [part for part in _CLAUSE.split(text.lower()) if part and part.strip()]


def affirmed(value: Any, text: str) -> bool:
    """Whether some clause without a negation names the value."""
    return any(names(value, clause) and not negated(clause) for clause in clauses(text))


def negated(low: str) -> bool:
    return _NEGATION.search(low) is not None


def candidates(options: Sequence[Any], text: str) -> int:
    """How many of the options the text names: an agent that lists them all has told nothing."""
    return sum(names(option, text) for option in options)
