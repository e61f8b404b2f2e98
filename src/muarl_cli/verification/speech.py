"""Which language a text is in, as far as code can tell: its script, and for Latin script its little words.

Invariant: a text that is too short or too mixed to tell has no language (""), and nothing is held against it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

SURE = 3
"""little words of one language that make it that language"""
_LITTLE = {
    "en": "the a is are you your to of and for with this that it be have i do please what can not will would on in",
    "de": "der die das ist sind sie ihr ihre zu und für mit nicht ich ein eine wird möchte bitte von auf dem den wie",
    "fr": "le la les est sont vous votre de et pour avec je un une pas ne que dans des du au souhaitez voulez merci",
    "es": "el la los las es son usted su de y para con no un una que en por del al quiere gracias se lo me",
    "it": "il lo la gli è sono lei suo di e per con non un una che in del al vuole grazie si mi ho della",
    "pt": "o a os as é são você seu de e para com não um uma que em por do da ao quer obrigado se me no",
    "nl": "de het een is zijn u uw te van en voor met niet ik dat wat op in aan wilt alstublieft deze die",
}
_OF_WORD: dict[str, frozenset[str]] = {}
for _code, _words in _LITTLE.items():
    for _word in _words.split():
        _OF_WORD[_word] = _OF_WORD.get(_word, frozenset()) | {_code}


def script_of(text: str) -> str:
    """The script of most letters ("LATIN", "CJK", "CYRILLIC", ...), "" for fewer than four letters."""
    letters = Counter(_script(char) for char in text if char.isalpha())
    if sum(letters.values()) < 4 and not letters.keys() & {"CJK"}:
        return ""
    return letters.most_common(1)[0][0]


@lru_cache(maxsize=1024)
def language_of(text: str) -> str:
    """A language code for Latin script, else the script's name in lower case; "" where code cannot tell."""
    script = script_of(text)
    if script != "LATIN":
        return script.lower()
    found: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        found.update(_OF_WORD.get(word, ()))
    ranked = found.most_common(2)
    if not ranked or ranked[0][1] < SURE:
        return ""
    second = ranked[1][1] if len(ranked) > 1 else 0
    return ranked[0][0] if ranked[0][1] >= 2 * second or ranked[0][1] - second >= SURE else ""


def foreign_letters(text: str, scripts: frozenset[str]) -> float:
    """The share of letters of a text that belong to none of `scripts`."""
    letters = [_script(char) for char in text if char.isalpha()]
    return sum(script not in scripts for script in letters) / len(letters) if letters else 0.0


def scripts_in(text: str) -> frozenset[str]:
    """All scripts that a text uses."""
    return frozenset(_script(char) for char in set(text) if char.isalpha())


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    name = unicodedata.name(char, "OTHER").split()[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL") else name
