"""The fidelity gate: may these words of a model be what the user says in this turn?

Code knows what the turn has to say (`Expected`); a model only words it. Every check is deterministic, costs no model
call and errs towards refusing, since a refused turn is asked for again and then worded by the fallback. Invariant:
words that pass say every fact of the turn, no fact that is not to be told yet, no value from nowhere, and no consent
that the code did not give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.worlds.language import said


class Broken(StrEnum):
    """What is wrong with a turn; logged as the tag "fidelity:NAME" of the user's event."""

    EMPTY = "empty"
    """no words (silence, a content filter, a cut before the first word)"""
    ROLE_FLIP = "role_flip"
    """talks like the agent"""
    COPIED = "copied_instruction"
    """recites its instructions, or talks about them"""
    INVENTED = "invented_value"
    """a value that nobody gave: not the task, not the agent"""
    EARLY = "early_fact"
    """a fact of the task that is not to be told in this turn"""
    MISSING = "missing_fact"
    """a fact that had to be told, or a wish that had to be raised, is not there"""
    STOP_PENDING = "stop_pending"
    """a vote to end while a write that was consented to is outstanding"""
    EARLY_STOP = "early_stop"
    """a vote to end, or a farewell, while the user still wants something"""
    REPEATED = "repeated"
    """a whole earlier message again, as the answer to something else"""
    CONTRADICTION = "contradiction"
    """takes back what the user said, or does not say the yes that is due"""
    FALSE_CONSENT = "false_consent"
    """a yes to a proposal that is not what the user wants"""


@dataclass(frozen=True)
class Expected:
    """What code knows about one turn of the user before it is worded."""

    known: str
    """all text whose values may be said: the agent's words, the user's earlier ones, and what is to be told now"""
    rules: str
    """the instructions the model plays by, without the task's own facts"""
    must: tuple[Any, ...] = ()
    """values that have to be said in this turn"""
    topics: tuple[frozenset[str], ...] = ()
    """for each wish that is raised in this turn, the stems of its wordings: one of them has to be there"""
    hidden: tuple[Any, ...] = ()
    """values of the task that are not to be told in this turn"""
    vocabulary: tuple[str, ...] = ()
    """values of the domain (names of methods, speeds, ...) that are not to be said unless they are `known`"""
    outdated: tuple[tuple[Any, Any], ...] = ()
    """(old, new) values of changes of mind that were voiced"""
    consent: bool | None = None
    """True: the turn is a yes; False: it is none; None: code does not know"""
    asked: bool = False
    """the agent asks for consent"""
    goes_on: bool | None = None
    """True: the user stays; False: this turn ends the conversation; None: the model decides"""
    plan: str = ""
    """what the turn says in the script's words, "" where code does not know"""
    earlier: tuple[tuple[str, str], ...] = ()
    """(heard, said) of the turns before"""
    heard: str = ""
    """what the agent said last"""


_ROLE_FLIP = re.compile(
    r"how (can|may) i (help|assist) you|i can (help|assist) you (with|by)"
    r"|(help|assist) you (today|with (that|this|anything))"
    r"|anything else i can (help|assist|do for you)|thank you for (contacting|calling|reaching out)"
    r"|\bi(?:'ve| have)? (now |just |successfully )*(cancell?ed|processed|updated|changed|refunded|booked) your\b"
    r"|\byour (order|account|reservation|request|refund|booking) has been\b|may i have your\b"
    r"|(provide|tell me|share|confirm) your (customer|user|order|account|card|email|name|id|zip|phone|reservation)"
    r"|let me (look up|check|pull up|access|verify) your\b|\bas (an ai|a language model|your (service )?agent)\b"
    r"|\bi(?:'m| am) an ai\b|<tool_call>|\btool_call\b",
    re.I,
)
_ABOUT_INSTRUCTIONS = re.compile(
    r"</?(scenario|turn|convey|instructions?|persona)>"
    r"|\b(my|the) (instructions?|system prompt|prompt|persona|script|scenario) (says?|said|tells?|is|are|states?)\b"
    r"|\brole-?play|simulated (user|customer)"
    r"|(?:^|\n)\s*(here is|here's) (my|the|a) (message|reply|response)\b|(?:^|\n)\s*(customer|user|agent|assistant):",
    re.I,
)
_ASKS_CONSENT = re.compile(
    r"\bshall i\b|\bshould i\b|do you (confirm|agree|approve|want me to|wish me to)|would you like me to|\bgo ahead\b"
    r"|\bproceed\b|confirm (that|this|these|the)\b|to confirm\b"
    r"|(is|does|are) (that|this|these|everything)( all)? (right|correct|ok|okay|fine|look|sound)|correct\?|right\?"
    r"|may i (now )?(go|do|make|cancel|change|process)|are you sure|yes or no|ok(ay)? with you",
    re.I,
)
_YES_START = re.compile(
    r"^\W*((ok(ay)?|great|perfect|thanks?( you)?|alright|all right|oh)\b\W*)*"
    r"(yes|yeah|yep|yup|sure|correct|right|confirmed|absolutely|definitely|of course|please do|go ahead|go for it|do it"
    r"|do that|please (proceed|go|continue|confirm)|proceed|agreed|exactly|sounds (good|right|fine|great)|ok(ay)?\b"
    r"|fine\b|perfect\b|i (agree|confirm|consent|approve)|that (works|sounds good|looks (good|right|correct))"
    r"|that('s| is) (all )?(fine|right|correct|good|ok|okay|perfect))(?=\W|$)",
    re.I,
)
_YES_INSIDE = re.compile(
    r"\bgo ahead\b|\bplease (do|proceed)\b|\bi (agree|confirm|consent|approve)\b|\bdo (it|that|so)\b|\byes\b"
    r"|\bthat('s| is) (right|correct)\b",
    re.I,
)
_PLAIN_YES = re.compile(r"^\W*(yes|yeah|yep|yup|sure|correct|confirmed|absolutely|go ahead)\b", re.I)
"""an agent may take this for a yes, whatever follows"""
_NO = re.compile(r"\b(no|not|never|nope|wait|hold on|stop|instead|rather|actually|wrong|but)\b|n't\b|n’t\b", re.I)
_FAREWELL = re.compile(
    r"\b(good)?bye\b|\bthat(?:'s| is|’s) (all|everything|it)\b|\bnothing else\b|have a (nice|good|great)|\bsee you\b",
    re.I,
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n")
_WITH_DIGIT = re.compile(r"[#\w]*\d[\w]*(?:[-/:][\w]*\d[\w]*)*")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DATE = re.compile(r"\d{1,2}[/:-]\d{1,2}([/:-]\d{2,4})?|(19|20)\d\d[/-]\d{1,2}([/-]\d{1,2})?")
"""dates and times, which people write in many ways"""
_UNIT = re.compile(r"^(\d+)[a-z]{1,4}$")
_YEAR = re.compile(r"(19|20)\d\d")
_STEM = 4
_IDLE_WORDS = """the and for let out got get put all you can has are now too was not its new off back time want plea
need some have with anot mine that this from will your like what thin more than help well just also"""
_NO_TOPIC = frozenset(_IDLE_WORDS.split())
"""stems that say nothing about what is wished"""
_COPY_WORDS = 8
"""this many words of the instructions in a row are a copy"""
_REPEAT_WORDS = 8
"""shorter messages ("yes, please go ahead.") may well come twice"""


def asks_consent(heard: str) -> bool:
    """Whether the agent's words ask for a yes to doing something."""
    return ("?" in heard and _ASKS_CONSENT.search(heard) is not None) or "yes/no" in heard or "(yes" in heard


def affirms(words: str) -> bool:
    """Whether the words say yes somewhere, in a sentence that takes nothing back."""
    for sentence in _SENTENCE.split(words):
        cleared = re.sub(r"\bno (problem|worries|changes|objections?)\b", "", sentence, flags=re.I)
        if (_YES_START.search(cleared) or _YES_INSIDE.search(cleared)) and not _NO.search(cleared):
            return True
    return False


def values_in(text: str, short: bool) -> set[str]:
    """Typed values in a text: ids, numbers, e-mail addresses, without case and separators.

    With `short` every number counts; without, only what has the form of an id (four digits, or three beside letters),
    and neither a date nor a year. A number with a unit ("256gb", "3rd") is the number.
    """
    found = {match.group().lower() for match in _EMAIL.finditer(text)}
    rest = _EMAIL.sub(" ", re.sub(r"(?<=\d),(?=\d{3})", "", text))
    for match in _WITH_DIGIT.finditer(rest):
        if not short and _DATE.fullmatch(match.group()):
            continue
        token = _UNIT.sub(r"\1", re.sub(r"[#/:_-]", "", match.group().lower()))
        digits = sum(char.isdigit() for char in token)
        if short or (digits >= 3 + token.isdigit() and not _YEAR.fullmatch(token)):
            found.add(token)
    return found


def check(words: str, end: EndReason | None, expected: Expected) -> tuple[Broken, ...]:
    """What is wrong with these words; empty where they may be said. A vote to end is judged by the state, not here."""
    if not words.strip():
        return () if end is not None and expected.goes_on is None else (Broken.EMPTY,)
    found = {
        Broken.ROLE_FLIP: _ROLE_FLIP.search(words) is not None,
        Broken.COPIED: _copies(words, expected),
        Broken.INVENTED: _invents(words, expected),
        Broken.EARLY: any(_says_anew(value, words, expected.known) for value in expected.hidden),
        Broken.MISSING: _omits(words, expected),
        Broken.EARLY_STOP: _leaves(words, expected),
        Broken.REPEATED: _repeats(words, expected),
        Broken.CONTRADICTION: _contradicts(words, expected),
        Broken.FALSE_CONSENT: _consents_falsely(words, expected),
    }
    return tuple(name for name, broken in found.items() if broken)


def stems(text: str) -> frozenset[str]:
    """The beginnings of the words that carry a wish: "cancelled" and "cancel" have the same."""
    return frozenset(word[:_STEM] for word in _words(text) if len(word) > 2) - _NO_TOPIC


def _omits(words: str, expected: Expected) -> bool:
    if not all(said(value, words) for value in expected.must):
        return True
    mine = stems(words)
    return not all(mine & topic for topic in expected.topics if topic)


def _says_anew(value: Any, words: str, known: str) -> bool:
    return said(value, words) and not said(value, known)


def _invents(words: str, expected: Expected) -> bool:
    strict = expected.consent is not None
    values = values_in(words, strict)
    if values and values - values_in(expected.known, True):
        return True
    return any(_says_anew(value, words, expected.known) for value in expected.vocabulary)


def _leaves(words: str, expected: Expected) -> bool:
    return expected.goes_on is True and _FAREWELL.search(words) is not None and not _FAREWELL.search(expected.plan)


def _consents_falsely(words: str, expected: Expected) -> bool:
    if not expected.asked or expected.consent is not False or affirms(expected.plan):
        return False
    return affirms(words) or _PLAIN_YES.search(words) is not None


def _contradicts(words: str, expected: Expected) -> bool:
    if expected.consent and not affirms(words):
        return True
    return any(
        said(old, words) and not said(new, words) and not said(old, expected.plan) for old, new in expected.outdated
    )


def _repeats(words: str, expected: Expected) -> bool:
    flat = _words(words)
    if len(flat) < _REPEAT_WORDS or flat == _words(expected.plan):
        return False
    return any(flat == _words(before) and heard != expected.heard for heard, before in expected.earlier)


def _copies(words: str, expected: Expected) -> bool:
    if _ABOUT_INSTRUCTIONS.search(words):
        return True
    mine = set(_runs(_words(words)))
    return bool(mine & _rule_runs(expected.rules)) if mine else False


@lru_cache(maxsize=64)
def _rule_runs(rules: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_runs(_words(rules)))


def _runs(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + _COPY_WORDS]) for i in range(len(words) - _COPY_WORDS + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'#@]+", text.lower())
