"""Behaviour metrics: how the agent went about it, counted from the event list alone.

`count` reduces one episode to integers, `pool` adds them up; every rate is a quotient of two such sums, so that neither
the order of episodes nor their grouping changes a number. Rates with nothing to divide by are None, not zero.

An event list does not say where one tool turn of the agent ends and the next begins, so nothing here depends on that: a
repeat counts as redundant for as long as no write happened in between, however many turns ago the first one was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.hashing import canonical_json

_WORD = re.compile(r"\w+")
_QUESTION = re.compile(r"[?？]+")
_N = 4


@dataclass(frozen=True)
class Counts:
    """What one episode (or several, added up) held. All calls are the agent's."""

    episodes: int = 0
    user_turns: int = 0
    user_calls: int = 0
    """dual control: calls to the user's own tools"""
    calls: int = 0
    error_calls: int = 0
    """answered by an error: not well formed, unknown, refused by the schema, or refused by the domain"""
    malformed_calls: int = 0
    """of these, those whose arguments could not be parsed or whose tool does not exist"""
    generic_calls: int = 0
    redundant_calls: int = 0
    """the same tool with the same arguments as an earlier call, with no successful write in between"""
    unnecessary_calls: int = 0
    """generic or redundant"""
    transfers: int = 0
    """episodes handed over, by a terminal tool or by the user's token"""
    messages: int = 0
    """agent messages that the user heard, without the greeting"""
    words: int = 0
    questions: int = 0
    writes: int = 0
    """successful calls of write tools"""
    confirmed_writes: int = 0
    """those with an agent question, and a user reply to it, since the last write (or the start)"""
    unconfirmed_episodes: int = 0
    """episodes with at least one write that was not confirmed"""
    writing_episodes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def turns(self) -> int:
        """Counted turns as the paper counts them: user messages plus tool calls."""
        return self.user_turns + self.calls + self.user_calls


@dataclass(frozen=True)
class Behaviour:
    """Pooled behaviour of a set of episodes: the counts, and how varied the agent's words were."""

    counts: Counts
    fourgrams: int
    """4-grams of words in what the agent said to users"""
    unique_fourgrams: int

    def to_json(self) -> dict[str, Any]:
        c = self.counts
        return {
            "episodes": c.episodes,
            "calls_per_episode": _rate(c.calls, c.episodes),
            "error_call_share": _rate(c.error_calls, c.calls),
            "malformed_call_share": _rate(c.malformed_calls, c.calls),
            "generic_calls_per_episode": _rate(c.generic_calls, c.episodes),
            "redundant_call_share": _rate(c.redundant_calls, c.calls),
            "unnecessary_call_share": _rate(c.unnecessary_calls, c.calls),
            "transfer_share": _rate(c.transfers, c.episodes),
            "questions_per_episode": _rate(c.questions, c.episodes),
            "words_per_message": _rate(c.words, c.messages),
            "unique_4gram_share": _rate(self.unique_fourgrams, self.fourgrams),
            "writes": c.writes,
            "confirmed_write_share": _rate(c.confirmed_writes, c.writes),
            "unconfirmed_episode_share": _rate(c.unconfirmed_episodes, c.writing_episodes),
        }


def count(events: Sequence[Event]) -> Counts:
    """The counts of one episode."""
    answers = _answers(events)
    totals: Counter[str] = Counter(episodes=1)
    seen: set[str] = set()
    consent = _Consent()
    for event in events:
        consent.hear(event)
        if event.kind is Kind.SAY:
            _count_words(event, totals)
        elif event.kind is Kind.CALL and event.actor is Actor.USER:
            totals["user_calls"] += 1
        elif event.kind is Kind.CALL and event.actor is Actor.AGENT and event.call is not None:
            answer = answers.get(event.i)
            wrote = _is_write(event) and answer is not None and answer.kind is Kind.RESULT
            _count_call(event, answer, seen, totals)
            if wrote:
                totals["writes"] += 1
                totals["confirmed_writes"] += consent.given
                consent.spend()
                seen.clear()
        elif event.kind is Kind.END:
            totals["transfers"] += event.text == EndReason.TRANSFER.value
    totals["writing_episodes"] = int(totals["writes"] > 0)
    totals["unconfirmed_episodes"] = int(totals["confirmed_writes"] < totals["writes"])
    return Counts(**totals)


def pool(episodes: Iterable[Sequence[Event]]) -> Behaviour:
    """Behaviour over several event lists."""
    total = Counts()
    grams: Counter[tuple[str, ...]] = Counter()
    for events in episodes:
        total = total + count(events)
        grams.update(_fourgrams(events))
    return Behaviour(total, sum(grams.values()), len(grams))


class _Consent:
    """Whether the agent has asked, and the user has replied, since the last write.

    Free of any domain's rules, hence crude in both directions: any question counts, and a "no" is a reply. One reply
    covers one write; a second write on the same reply is unconfirmed.
    """

    def __init__(self) -> None:
        self._asked = False
        self.given = False

    def hear(self, event: Event) -> None:
        if _spoken(event) and _QUESTION.search(event.text):
            self._asked = True
        elif event.actor is Actor.USER and event.kind is Kind.SAY and self._asked:
            self.given = True

    def spend(self) -> None:
        self._asked = self.given = False


def _spoken(event: Event) -> bool:
    """Words of the agent that the user hears; the greeting is the scenario's."""
    return event.heard_by_user() and "greeting" not in event.tags


def _is_write(event: Event) -> bool:
    return event.call is not None and event.call.klass is ToolClass.WRITE


def _answers(events: Sequence[Event]) -> dict[int, Event]:
    """The world's answer to each call, by the index of the call. Ids may come again; the latest open call is meant."""
    open_calls: dict[str, int] = {}
    answers: dict[int, Event] = {}
    for event in events:
        if event.call is None:
            continue
        if event.kind is Kind.CALL:
            open_calls[event.call.id] = event.i
        elif event.actor is Actor.WORLD and event.call.id in open_calls:
            answers[open_calls.pop(event.call.id)] = event
    return answers


def _count_words(event: Event, totals: Counter[str]) -> None:
    if event.actor is Actor.USER:
        totals["user_turns"] += 1
    elif _spoken(event):
        totals["messages"] += 1
        totals["words"] += len(_WORD.findall(event.text))
        totals["questions"] += len(_QUESTION.findall(event.text))


def _count_call(event: Event, answer: Event | None, seen: set[str], totals: Counter[str]) -> None:
    call = event.call
    assert call is not None
    key = canonical_json([call.name, event.text if call.arguments is None else call.arguments])
    redundant, generic = key in seen, call.klass is ToolClass.GENERIC
    seen.add(key)
    totals["calls"] += 1
    totals["error_calls"] += answer is not None and answer.kind is Kind.ERROR
    totals["malformed_calls"] += call.arguments is None or call.klass is None
    totals["generic_calls"] += generic
    totals["redundant_calls"] += redundant
    totals["unnecessary_calls"] += redundant or generic


def _fourgrams(events: Sequence[Event]) -> Iterable[tuple[str, ...]]:
    for event in events:
        if _spoken(event):
            words = _WORD.findall(event.text.lower())
            yield from (tuple(words[i : i + _N]) for i in range(len(words) - _N + 1))


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
