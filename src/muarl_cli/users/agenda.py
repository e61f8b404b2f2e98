"""The scripted user: an agenda held by code, worded by templates.

The state is what the user was told, what is left, and what will change. Invariants: values come from the goals and from
nowhere else; consent is given only to a proposal that names the goal's current values; the user never stops while a
consented write has not been reported, refused or handed over; the same seed and the same agent turns give the same words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, Usage, UserTurn
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import Language, said, value_text
from muarl_cli.worlds.scenario import Task

PATIENCE = 6
"""turns in a row that bring the user nothing, before they leave"""

_PROPOSAL = re.compile(
    r"shall i|should i|do you confirm|please confirm|can you confirm|go ahead|is (that|this) (right|correct|ok)|proceed"
    r"|would you like me to|do you want me to|may i|yes/no|yes or no",
    re.I,
)
_DONE = re.compile(
    r"\bdone\b|has been|have been|have (now )?(cancel|chang|updat|add|open|return|book|renew|mark|set|remov|appl|register|submit|reserv)"
    r"|successful|completed|all set",
    re.I,
)
_REFUSAL = re.compile(r"\bsorry\b|can ?not|can't|unable|not (able|possible|allowed)|impossible|won't|no longer possible", re.I)
_TRANSFER = re.compile(r"transfer(r|ing)? you|hand(ing)? you over|human agent", re.I)
_MORE = re.compile(r"anything else|something else|else i can|further", re.I)
_BYE = re.compile(r"\b(good)?bye\b|have a (nice|great|good)|take care", re.I)
_ASKS = re.compile(r"\?|please|tell me|give me|provide|may i have|need (your|the|to know)|which|what", re.I)


class AgendaUser:
    """One user in one episode."""

    def __init__(self, language: Language, goals: Sequence[Goal], seed: int) -> None:
        self.language = language
        self.goals = list(goals)
        self.rng = random.Random(derive_seed(seed, "user"))
        self.at = -1
        """index of the open goal; -1 before the opening"""
        self.told: set[tuple[str, str]] = set()
        """(slot, value in words) the agent has heard"""
        self.changed: set[int] = set()
        """goals whose change was voiced"""
        self.consented = False
        """a yes was given and nothing was reported since"""
        self.patience = PATIENCE
        self.misses = 0
        """agent turns that were not understood"""

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        heard = " ".join(event.text for event in news if event.heard_by_user())
        text, end, tags = self.answer(heard)
        return UserTurn(text, end, tags=tags, usage=Usage(0, len(text.split())))

    def close(self) -> None:
        """Nothing is held."""

    def answer(self, heard: str) -> tuple[str, EndReason | None, tuple[str, ...]]:
        """What the user says to these words, how they end the conversation if they do, and which injectors fired."""
        if self.at < 0:
            self.at = 0
            return self.language.phrase("hello", self.rng) + self._open(), None, ()
        goal = self.goals[self.at]
        if _PROPOSAL.search(heard) and ("?" in heard or "confirm" in heard.lower()) and self._concerns(goal, heard):
            return self._answer_proposal(goal, heard)
        if _DONE.search(heard):
            return self._answer_report(goal)
        if _TRANSFER.search(heard):
            return self._phrase("transferred"), EndReason.USER_STOP, ()
        if _REFUSAL.search(heard):
            self.consented = False
            return self._next("refused")
        asked = self._asked(goal, heard)
        if asked:
            return self._inform(goal, asked)
        if _BYE.search(heard):
            return self._leave()
        if _MORE.search(heard):
            return self._insist(goal)
        self.misses += 1
        return self._insist(goal)

    def _phrase(self, name: str, **values: str) -> str:
        return self.language.phrase(name, self.rng, **values)

    def _current(self, goal: Goal) -> dict[str, Any]:
        """The values wanted now."""
        return goal.final if self.at in self.changed else dict(goal.slots)

    def _concerns(self, goal: Goal, heard: str) -> bool:
        """Whether a question is about carrying out this goal: it names at least one of its values."""
        values = {**goal.slots, **goal.final}
        return any(said(v, heard) for s, v in values.items()) or any(said(v, heard) for v in goal.slots.values())

    def _tell(self, goal: Goal, slots: Sequence[str], act: str = "tell") -> str:
        facts = []
        for name in slots:
            slot = self.language.slots[name]
            value = value_text(self._current(goal)[name])
            self.told.add((name, value))
            facts.append(self.rng.choice(slot.change if act == "change" and slot.change else slot.tell).format(v=value))
        return " ".join(facts)

    def _open(self) -> str:
        goal = self.goals[self.at]
        intent = self.language.intents[goal.intent]
        new = [s for s in goal.tell_first if (s, value_text(goal.slots[s])) not in self.told]
        return f"{self.rng.choice(intent.open)} {self._tell(goal, new)}".strip()

    def _answer_proposal(self, goal: Goal, heard: str) -> tuple[str, EndReason | None, tuple[str, ...]]:
        change = self._voice_change(goal)
        if change:
            return change, None, ("inject:mind_change",)
        current = self._current(goal)
        intent = self.language.intents[goal.intent]
        shown = [s for s in intent.slots if "{" + s + "}" in intent.propose]
        wrong = [s for s in shown if s not in goal.unknown and not said(current[s], heard)]
        if wrong:
            return self._impatient(self._phrase("wrong", facts=self._tell(goal, wrong)))
        self.consented = True
        self.patience = PATIENCE
        return self._phrase("agree"), None, ()

    def _voice_change(self, goal: Goal) -> str:
        if goal.change is None or self.at in self.changed:
            return ""
        self.changed.add(self.at)
        return self._tell(goal, [goal.change.slot], act="change")

    def _answer_report(self, goal: Goal) -> tuple[str, EndReason | None, tuple[str, ...]]:
        self.consented = False
        change = self._voice_change(goal)
        if change:  # it was done without asking: the user says so now, which may be too late
            return self._phrase("late", facts=change), None, ("inject:mind_change",)
        return self._next("")

    def _next(self, lead: str) -> tuple[str, EndReason | None, tuple[str, ...]]:
        """Close the open goal and go on to the next one, or stop."""
        words = self._phrase(lead) + " " if lead else ""
        self.at += 1
        self.patience = PATIENCE
        if self.at >= len(self.goals):
            return words + self._phrase("no_thanks"), EndReason.USER_STOP, ()
        return words + self._phrase("next") + self._open(), None, ()

    def _asked(self, goal: Goal, heard: str) -> list[str]:
        """Slots of the open goal that the agent asks about."""
        if not _ASKS.search(heard):
            return []
        slots = self.language.intents[goal.intent].slots
        return [s for s in slots if re.search(self.language.slots[s].hear, heard, re.I)]

    def _inform(self, goal: Goal, asked: list[str]) -> tuple[str, EndReason | None, tuple[str, ...]]:
        parts = []
        repeated = all((s, value_text(self._current(goal)[s])) in self.told for s in asked if s not in goal.unknown)
        for slot in asked:
            if slot in goal.unknown:
                parts.append(self.rng.choice(self.language.slots[slot].dont_know).format(hint=goal.unknown[slot]))
            else:
                parts.append(self._tell(goal, [slot]))
        words = " ".join(parts)
        return self._impatient(words) if repeated else (words, None, ())

    def _insist(self, goal: Goal) -> tuple[str, EndReason | None, tuple[str, ...]]:
        """Not understood, or the agent moved on too early: say again what is wanted, with the facts told so far."""
        intent = self.language.intents[goal.intent]
        known = [s for s in intent.slots if (s, value_text(self._current(goal)[s])) in self.told]
        words = f"{self.rng.choice(intent.open)} {self._tell(goal, known)}".strip()
        return self._impatient(self._phrase("unclear", goal=words))

    def _impatient(self, words: str) -> tuple[str, EndReason | None, tuple[str, ...]]:
        self.patience -= 1
        if self.patience <= 0 and not self.consented:
            return self._leave()
        if self.patience <= -PATIENCE:  # consented, and still nothing: even then a conversation must end
            return self._leave()
        return words, None, ()

    def _leave(self) -> tuple[str, EndReason | None, tuple[str, ...]]:
        return self._phrase("leave"), EndReason.USER_STOP, ()


class AgendaUsers:
    """Opens scripted users; needs the domain's language, which built-in scenarios carry."""

    def __init__(self, language: Language) -> None:
        self.language = language

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "scripted", "model": "agenda/1", "prompt_hash": ""}

    def open(self, stage: Stage, task: Task) -> AgendaUser:
        return AgendaUser(self.language, goals_of(task.brief), stage.seed)
