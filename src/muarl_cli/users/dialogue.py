"""An episode as its user saw it: what they heard, what they answered, what the agent's turns were for each request.

Invariant: nothing here knows how the user was made; consent, proposals and open requests are read off the words and the
facts of the task, for scripted, modelled and human users alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, CallRecord, Kind, ToolClass
from muarl_cli.users.facts import Facts
from muarl_cli.users.hearing import Act, hear
from muarl_cli.worlds.goals import Goal
from muarl_cli.worlds.language import Language, said, value_text

CHANGING = "inject:mind_change"
_YES = re.compile(
    r"^\W*(yes|yeah|yep|yup|sure|correct|right|exactly|absolutely|of course|go ahead|please do|please proceed"
    r"|(ok|okay)(?=\W*$|.*\b(go ahead|do (it|that|so)|please|proceed))"
    r"|sounds good|perfect|that('s| is) (right|correct|fine))\b",
    re.I,
)
_BUT = re.compile(r"\b(no|not|don't|wait|actually|but|instead|hold on|rather)\b", re.I)


def is_yes(text: str) -> bool:
    """Whether a person's words agree to something, without taking it back in the same breath."""
    return _YES.search(text) is not None and _BUT.search(text) is None


@dataclass(frozen=True)
class Exchange:
    """One turn of the user, and what came before it since their last one."""

    heard: str
    """the agent's words, "" before the opening"""
    text: str
    tags: tuple[str, ...]
    writes: tuple[CallRecord, ...]
    """calls with which the agent changed something meanwhile"""
    acts: tuple[Act, ...] = ()
    """what the words are for each request of the task"""
    asked: frozenset[str] = frozenset()
    """slots they ask for"""
    open: int = 0
    """the request that was last raised before this turn"""
    moved: bool = False
    """this turn raises the next one"""


class Dialogue:
    """The exchanges of an episode, with the facts of its user."""

    def __init__(self, episode: Episode, facts: Facts) -> None:
        self.episode, self.facts = episode, facts
        self.turns = _exchanges(episode, facts)

    @property
    def language(self) -> Language:
        assert self.facts.language is not None
        return self.facts.language

    @cached_property
    def words(self) -> str:
        """All that the user said, in lower case."""
        return " ".join(turn.text for turn in self.turns).lower()

    @property
    def stopped(self) -> bool:
        """Whether the user ended the conversation as somebody who is done."""
        return self.episode.end.reason is EndReason.USER_STOP

    @cached_property
    def gave_up(self) -> bool:
        """Whether the last words are those of somebody who leaves, or who is being handed over."""
        if not self.turns:
            return True
        last = self.turns[-1]
        phrases = self.language.phrases
        lines = (*phrases.get("leave", ()), *phrases.get("transferred", ()))
        return any(line in last.text for line in lines) or Act.TRANSFER in last.acts or "leave" in last.tags

    def voiced(self, number: int, before: int) -> bool:
        """Whether the planned change of a request was said in one of the first `before` turns."""
        change = self.facts.goals[number].change
        if change is None:
            return False
        scripted = self.episode.user.get("backend") == "scripted"
        return any(
            said(change.value, turn.text) and (not scripted or CHANGING in turn.tags) for turn in self.turns[:before]
        )

    def agrees(self, at: int) -> bool:
        """Whether turn `at` is a yes to a proposal."""
        turn = self.turns[at]
        if Act.PROPOSAL not in turn.acts or turn.moved:
            return False
        if turn.text in self.language.phrases.get("agree", ()):
            return True
        if self.episode.user.get("backend") == "scripted":
            return False  # it has no other words for a yes
        return is_yes(turn.text)

    def proposed(self, at: int) -> list[int]:
        """Requests whose values, as they are wanted at turn `at`, the proposal before it names."""
        return [n for n in range(len(self.facts.goals)) if self._names(n, at)]

    def _names(self, number: int, at: int) -> bool:
        goal = self.facts.goals[number]
        wanted = goal.final if self.voiced(number, at) else goal.slots
        heard = self.turns[at].heard
        return all(said(wanted[slot], heard) for slot in shown(self.language, goal))

    def raised(self, number: int) -> bool:
        """Whether the user brought a request up: in the domain's words, or by a value that only this request has."""
        goals = self.facts.goals
        goal = goals[number]
        if any(line.lower() in self.words for line in self.language.intents[goal.intent].open):
            return True
        others = {
            value_text(v) for k, g in enumerate(goals) if k != number for r in (g.slots, g.final) for v in r.values()
        }
        own = {value_text(v) for row in (goal.slots, goal.final) for v in row.values()} - others
        hints = [hint.lower() for hint in goal.unknown.values()]
        return any(said(value, self.words) for value in own) or any(hint in self.words for hint in hints)


def shown(language: Language, goal: Goal) -> list[str]:
    """Slots that a proposal of a request has to name; who the user is may be left out."""
    intent = language.intents[goal.intent]
    slots = [s for s in intent.slots if "{" + s + "}" in intent.propose and s not in goal.unknown]
    return [s for s in slots if s != intent.slots[0]] or slots


def _exchanges(episode: Episode, facts: Facts) -> list[Exchange]:
    reader = _Reader(facts)
    heard: list[str] = []
    writes: list[CallRecord] = []
    asked_for: dict[str, CallRecord] = {}
    turns: list[Exchange] = []
    for event in episode.events:
        if event.heard_by_user():
            heard.append(event.text)
        elif event.kind is Kind.CALL and event.call and event.actor is Actor.AGENT:
            asked_for[event.call.id] = event.call
        elif event.kind is Kind.RESULT and event.call and event.call.klass is ToolClass.WRITE:
            writes.append(asked_for.get(event.call.id, event.call))
        elif event.actor is Actor.USER and event.kind is Kind.SAY:
            words = " ".join(heard) if turns else ""
            turns.append(reader.read(words, event.text, event.tags, tuple(writes)))
            heard, writes = [], []
    return turns


class _Reader:
    """Reads turns in order, and keeps track of the open request and of whether the user waits for a report."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.language = facts, facts.language
        self.patterns = {name: slot.hear for name, slot in facts.language.slots.items()} if facts.language else {}
        self.open = 0
        self.agreed = self.wrote = False
        """since the user last raised a request: a yes that nothing came of, a write"""

    def read(self, heard: str, text: str, tags: tuple[str, ...], writes: tuple[CallRecord, ...]) -> Exchange:
        before, raised = self.open, self._move_on(text)
        self.wrote = self.wrote or bool(writes)
        acts, asked = self._acts(heard, self.agreed or self.wrote) if heard.strip() else ((), frozenset())
        agreed = Act.PROPOSAL in acts and _YES.search(text) is not None
        moved = bool(writes) or bool({Act.REPORT, Act.REFUSAL, Act.TRANSFER} & set(acts))
        self.agreed = agreed or (self.agreed and not moved)
        self.wrote = self.wrote and not raised
        return Exchange(heard, text, tags, writes, acts, asked, before, raised)

    def _acts(self, heard: str, expecting: bool) -> tuple[tuple[Act, ...], frozenset[str]]:
        acts: list[Act] = []
        slots: set[str] = set()
        for goal in self.facts.goals:
            assert self.language is not None
            values = (goal.slots, goal.final)
            act, asked = hear(heard, self.language.intents[goal.intent].slots, self.patterns, values, expecting)
            acts.append(act)
            slots |= set(asked)
        return tuple(acts), frozenset(slots)

    def _move_on(self, text: str) -> bool:
        """Whether the words raise the next request, which is then the open one."""
        following: Sequence[Goal] = self.facts.goals[self.open + 1 : self.open + 2]
        for goal in following:
            assert self.language is not None
            if any(line in text for line in self.language.intents[goal.intent].open):
                self.open += 1
                return True
        return False
