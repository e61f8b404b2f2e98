"""What an agent's words mean to a scripted user: one act a turn, read sentence by sentence.

The patterns cover the scripted agents' templates and the usual wordings of large models (bullet lists, apologies,
announcements). Invariant: this module decides nothing and holds no state; it is safe on any text, and what it cannot
read is UNCLEAR, never a consent or a stop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from muarl_cli.worlds.language import said

MAX_CHARS = 20_000
"""longer turns are read up to here"""


class Act(StrEnum):
    """What an agent turn does, for the user."""

    PROPOSAL = "proposal"
    """asks for a yes to carrying out the open request, naming at least one of its values"""
    ASK = "ask"
    """asks for slots of the open request"""
    ASK_MORE = "ask_more"
    """asks for details without saying which"""
    REPORT = "report"
    """says that it was done"""
    REFUSAL = "refusal"
    TRANSFER = "transfer"
    """says that the user is being handed over"""
    TRANSFER_OFFER = "transfer_offer"
    """asks whether to hand the user over"""
    WAIT = "wait"
    """announces something and asks for nothing"""
    MORE = "more"
    """asks for another request"""
    BYE = "bye"
    UNCLEAR = "unclear"


class Heard(NamedTuple):
    """An act, and the slots it asks for."""

    act: Act
    slots: tuple[str, ...] = ()


class _Cue:
    """A pattern over lower-case text, behind a cheap test.

    `stems`: wherever the pattern matches, one of these stands in the text. Most turns hold none of them, and a search
    for fixed words costs a hundredth of one for a pattern. Without stems the pattern alone decides.
    """

    __slots__ = ("_search", "stems")

    def __init__(self, pattern: str, *stems: str) -> None:
        self._search, self.stems = re.compile(pattern).search, stems

    def possible(self, text: str) -> bool:
        """False where neither the text nor any sentence of it can match."""
        if not self.stems:
            return True
        for stem in self.stems:  # noqa: SIM110 (a generator would cost more than the search)
            if stem in text:
                return True
        return False

    def search(self, text: str) -> bool:
        return self.possible(text) and self._search(text) is not None

    def any(self, sentences: Sequence[str]) -> bool:
        """Whether a sentence matches."""
        return any(self._search(sentence) is not None for sentence in sentences)


_PROPOSAL = _Cue(
    r"shall i|should i|do you (confirm|agree|approve)|(please|can you|could you) confirm|confirm (that|this"
    r"|these|the)"
    r"|to confirm|go ahead|(is|does) (that|this|everything)( all)? (right|correct|ok|okay|look|sound)|proceed"
    r"|correct\?"
    r"|right\?|would you like me to|do you want me to|may i\b|are you sure|yes/no|yes or no|\(yes|ok(ay)? with you"
    r"|like to (continue|proceed|go ahead|confirm)",
    "shall i",
    "should i",
    "do you",
    "confirm",
    "go ahead",
    "right",
    "correct",
    "ok",
    "look",
    "sound",
    "proceed",
    "would you",
    "may i",
    "are you sure",
    "yes",
    "like to",
)
_VERBS = (
    "cancel|chang|updat|add|open|return|book|renew|mark|set|remov|appl|register|submit|reserv|process|report|creat"
    "|request|exchang|switch|correct|extend|drop|record|log|wrapp|paid|refund|upgrad|suggest|left|note|order|arrang|mov"
    "|modif|sent|borrow|lent|check|swap|join|add"
)
_DONE = _Cue(
    rf"\bdone\b|\ball set\b|\bcompleted\b|successfully (?!(verif|authent|locat|found|identif|retriev|log))"
    rf"|(has|have) (now |just |already )?been (now |successfully )?({_VERBS})"
    rf"|\bi(?:'ve| have) (?:now |just |successfully |gone ahead and )*({_VERBS})|was successful",
    "done",
    "all set",
    "completed",
    "success",
    "been",
    "i've",
    "i have",
)
_DONE_LOOSE = _Cue(
    r"\bis now\b|\bare now\b|\byou (will|should) (now )?(receive|get)|\byour new\b|went through",
    "is now",
    "are now",
    "you will",
    "you should",
    "your new",
    "went through",
)
"""a report to someone who waits for one, and to nobody else"""
_CANNOT = _Cue(
    r"can ?not\b|\bcan't|\bunable\b|\bnot (able|possible|allowed|eligible|permitted|available)|n't (able"
    r"|possible|allowed"
    r"|eligible|permitted|available)|\bimpossible|\bwon't\b|no longer (possible|available|be)|\bnot meet"
    r"|does(n't| not) allow"
    r"|\bineligible|\bhas(n't| not) been|\bfailed\b|\bdeclin",
    "not",
    "n't",
    "unable",
    "impossible",
    "no longer",
    "ineligible",
    "failed",
    "declin",
)
_REGRET = _Cue(
    r"\bsorry\b(?!,? (to hear|for|about|that you))|\bunfortunately\b|\bafraid\b|\bregret\b",
    "sorry",
    "unfortunately",
    "afraid",
    "regret",
)
_TRANSFER = _Cue(
    r"(transfer(r|ring)?|connect(ing)?|hand(ing)?|pass(ing)?|put(ting)?) you (over|through|now|to|with)\b"
    r"|being transferred|human agent|transfer you",
)
_MORE = _Cue(
    r"anything else|something else|else i can|any other (question|request)|further (help|assist)",
    "else",
    "any other",
    "further",
)
_BYE = _Cue(
    r"\b(good)?bye\b|have a (nice|great|good|wonderful|lovely)|take care",
    "bye",
    "have a",
    "take care",
)
_ASKS = _Cue(
    r"\?|\bplease\b|tell me|give me|provide|may i have|need (your|the|to know|you to)|without (your|the|a)|\bshare\b"
    r"|let me know|\bonce you\b|i('ll| will|'d| would)? (also )?(need|require)",
    "?",
    "please",
    "me",
    "provide",
    "may i have",
    "need",
    "without",
    "share",
    "once you",
    "require",
)
_WAIT = _Cue(
    r"one (moment|second)|a (moment|second|minute)\b|bear with|hold on|please (wait|hold)|thank you for|thanks for"
    r"|let me (now |quickly |just )?(check|look|pull|find|verify|see|review|retrieve|locate|get|process|update"
    r"|access|go|do)"
    r"|\bi(?:'ll| will|'m| am)( now| just| going to)* (check|look|pull|proceed|process|go ahead|verify|review"
    r"|retriev|locat"
    rf"|find|take care|work|get|handl|{_VERBS})",
)
_GENERIC = _Cue(
    r"details|information|more about|how (can|may|could) i (help|assist)|what (can|could|would|do)|clarif"
    r"|specif|elaborate"
    r"|describe|explain|which one|could you (please )?(confirm|tell|provide|share)|understand",
    "detail",
    "information",
    "more about",
    "how",
    "what",
    "clarif",
    "specif",
    "elaborate",
    "describe",
    "explain",
    "which one",
    "could you",
    "understand",
)
_BULLET = re.compile(r"(?:[-*•–]|\d{1,2}[.)])\s")
_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")


def hear(
    text: str, slots: Sequence[str], patterns: Mapping[str, str], values: Sequence[Mapping[str, Any]], expecting: bool
) -> Heard:
    """The act of an agent turn.

    `slots` and `patterns` say what the open request needs and how questions about it sound; `values` are its first and
    its final values; `expecting` says that the user waits for a report (after a yes, or after a write).
    """
    words = text[:MAX_CHARS].replace("’", "'").replace("`", "'").lower()
    sentences = _sentences(words)
    asked = _asked(words, sentences, slots, patterns, values)
    if not asked and ("?" in words or "confirm" in words) and _PROPOSAL.search(words) and _concerns(words, values):
        return Heard(Act.PROPOSAL)
    refusing = _CANNOT.possible(words)
    refused = refusing and _CANNOT.any(sentences)
    if transfer := next((s for s in sentences if _TRANSFER.search(s)), ""):
        if "?" in transfer:
            return Heard(Act.TRANSFER_OFFER)
        if not _CANNOT.search(transfer):
            return Heard(Act.TRANSFER)
    done = _DONE.possible(words) and any(
        _DONE.search(s) and not (refusing and _CANNOT.search(s)) and "?" not in s for s in sentences
    )
    if expecting and not refused and (done or _DONE_LOOSE.search(words)):
        return Heard(Act.REPORT)
    if asked:
        return Heard(Act.ASK, asked)
    if refused or _REGRET.search(words):
        return Heard(Act.REFUSAL)
    if done:
        return Heard(Act.REPORT)
    return Heard(_small_act(sentences))


def _sentences(words: str) -> list[str]:
    """Sentences and lines; the items of a list belong to the line that introduces them."""
    if "\n" not in words:
        return [s for s in _SENTENCE.split(words.strip()) if s and not s.isspace()]
    lines: list[str] = []
    for line in (line.strip() for line in words.split("\n")):
        if lines and _BULLET.match(line):
            lines[-1] += ", " + line
        elif line:
            lines.append(line)
    return [s for s in _SENTENCE.split("\n".join(lines)) if s.strip()]


def _small_act(sentences: Sequence[str]) -> Act:
    """What is left when nothing is proposed, asked by name, reported or refused."""
    if _BYE.any(sentences):
        return Act.BYE
    if _MORE.any(sentences):
        return Act.MORE
    if any(_GENERIC.search(s) and _ASKS.search(s) for s in sentences):
        return Act.ASK_MORE
    return Act.WAIT if _WAIT.any(sentences) else Act.UNCLEAR


def _asked(
    words: str,
    sentences: Sequence[str],
    slots: Sequence[str],
    patterns: Mapping[str, str],
    values: Sequence[Mapping[str, Any]],
) -> tuple[str, ...]:
    """Slots that a sentence asks for without naming their value."""
    if not _ASKS.possible(words):
        return ()
    found = []
    for sentence in sentences:
        if not _ASKS.search(sentence) or _MORE.search(sentence):
            continue
        if "?" not in sentence and (_WAIT.search(sentence) or _mere_refusal(sentence)):
            continue
        for slot in slots:
            if _compiled(patterns[slot]).search(sentence) and not _named(slot, sentence, values):
                found.append(slot)
    return tuple(slot for slot in slots if slot in found) if found else ()


def _named(slot: str, sentence: str, values: Sequence[Mapping[str, Any]]) -> bool:
    for row in values:  # noqa: SIM110 (a generator would cost more than the test)
        if said(row[slot], sentence):
            return True
    return False


def _mere_refusal(sentence: str) -> bool:
    return _CANNOT.search(sentence) and "without" not in sentence and "need" not in sentence


def _concerns(words: str, values: Sequence[Mapping[str, Any]]) -> bool:
    return any(said(value, words) for row in values for value in row.values())


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """The pattern for text in lower case; one with capitals, which may stand in an escape, stays deaf to case."""
    return re.compile(pattern, 0 if pattern == pattern.lower() else re.I)
