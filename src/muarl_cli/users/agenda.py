"""The scripted user: an agenda held by code, worded by templates.

The state is what the user was told, what is left, and what will change. Invariants: values come from the goals and from
nowhere else; consent is given only to a proposal that names the goal's current values; the user never stops while a
consented write has not been reported, refused or handed over; the same seed and the same agent turns give the same
words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, ToolClass
from muarl_cli.conversation.protocols import Stage, Usage, UserTurn
from muarl_cli.hashing import derive_seed
from muarl_cli.users.hearing import Act, hear
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import Language, said, value_text
from muarl_cli.worlds.scenario import Task

PATIENCE = 6
"""turns that bring the user nothing, before they leave"""

Answer = tuple[str, EndReason | None, tuple[str, ...]]
"""words, a vote to end, injectors that fired"""


class AgendaUser:
    """One user in one episode."""

    def __init__(self, language: Language, goals: Sequence[Goal], seed: int) -> None:
        self.language = language
        self._patterns = {name: slot.hear for name, slot in language.slots.items()}
        self.goals = list(goals)
        self.rng = random.Random(derive_seed(seed, "user"))
        self.at = -1
        """index of the open goal; -1 before the opening"""
        self.told: set[tuple[str, str]] = set()
        """(slot, value in words) the agent has heard"""
        self.changed: set[int] = set()
        """goals whose change was voiced"""
        self.consented = False
        """a yes was given, and since then nothing was written, reported or refused"""
        self.wrote = False
        """the agent wrote something since the user last moved on"""
        self.patience = PATIENCE
        self.misses = 0
        """agent turns that were not understood"""

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if any(e.actor is Actor.WORLD and e.call and e.call.ok and e.call.klass is ToolClass.WRITE for e in news):
            self.wrote, self.consented = True, False
        heard = " ".join(event.text for event in news if event.heard_by_user())
        text, end, tags = self.answer(heard)
        return UserTurn(text, end, tags=tags, usage=Usage(0, len(text.split())))

    def close(self) -> None:
        """Nothing is held."""

    def answer(self, heard: str) -> Answer:
        """What the user says to these words, how they end the conversation if they do, and which injectors fired."""
        if self.at < 0:
            self.at = 0
            return self.language.phrase("hello", self.rng) + self._open(), None, ()
        goal = self.goals[self.at]
        slots = self.language.intents[goal.intent].slots
        values = (goal.slots, goal.final) if goal.change else (goal.slots,)
        act, asked = hear(heard, slots, self._patterns, values, self.consented or self.wrote)
        if self.wrote and act in (Act.MORE, Act.BYE, Act.WAIT, Act.UNCLEAR):
            act = Act.REPORT  # something was written and the agent moves on: that is a report, however it is worded
        if self._answered(goal, act, heard):
            act = Act.REPORT
        return self._react(goal, act, asked, heard)

    def _answered(self, goal: Goal, act: Act, heard: str) -> bool:
        """Whether a user who only asks was told, in words that are for nothing else."""
        if not self.language.intents[goal.intent].asks or act in (Act.ASK, Act.REFUSAL, Act.TRANSFER):
            return False
        return said(goal.slots["answer"], heard)

    def _react(self, goal: Goal, act: Act, asked: Sequence[str], heard: str) -> Answer:
        """The answer to an act of the agent; `asked` are the slots it asks for."""
        match act:
            case Act.PROPOSAL:
                return self._answer_proposal(goal, heard)
            case Act.REPORT:
                return self._answer_report(goal)
            case Act.TRANSFER:
                return self._phrase("transferred"), EndReason.USER_STOP, ()
            case Act.TRANSFER_OFFER if self.language.intents[goal.intent].then_transfer:
                return self._answer_proposal(goal, heard)
            case Act.REFUSAL:
                return self._next("refused")
            case Act.ASK:
                return self._inform(goal, asked)
            case Act.ASK_MORE:
                return self._tell_more(goal)
            case Act.WAIT:
                return self._impatient(self._phrase("patient"))
            case Act.BYE:
                self.patience -= PATIENCE // 2
                return self._insist(goal)
            case Act.UNCLEAR:
                self.misses += 1
        return self._insist(goal)

    def _phrase(self, name: str, **values: str) -> str:
        return self.language.phrase(name, self.rng, **values)

    def _current(self, goal: Goal) -> dict[str, Any]:
        """The values wanted now."""
        return goal.final if self.at in self.changed else dict(goal.slots)

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

    def _answer_proposal(self, goal: Goal, heard: str) -> Answer:
        change = self._voice_change(goal) if self._change_is_due(goal, heard) else ""
        if change:
            return change, None, ("inject:mind_change",)
        wrong = self._wrong(goal, heard)
        if wrong:
            return self._impatient(self._phrase("wrong", facts=self._tell(goal, wrong)))
        return self._agree(goal)

    def _agree(self, goal: Goal) -> Answer:
        """Consent: the proposal names the goal's current values."""
        self.consented = True
        self.patience = PATIENCE
        return self._phrase("agree"), None, ()

    def _wrong(self, goal: Goal, heard: str) -> list[str]:
        """Slots that a proposal must name and does not name with their current value.

        Who the user is (the first slot) may be left out, but then no other number of its form may stand there.
        """
        current = self._current(goal)
        intent = self.language.intents[goal.intent]
        shown = [s for s in intent.slots if "{" + s + "}" in intent.propose and s not in goal.unknown]
        wrong = [s for s in shown if not said(current[s], heard)]
        who = value_text(current[intent.slots[0]])
        if wrong == [intent.slots[0]] and (intent.slots[0], who) in self.told and len(shown) > 1:
            known = {value_text(value) for value in current.values()}
            if set(re.findall(rf"(?<!\w)\d{{{len(who)}}}(?!\w)", heard)) <= known:
                return []
        return wrong

    def _change_is_due(self, goal: Goal, heard: str) -> bool:
        """Whether a planned change is voiced at this proposal: at the first one, right or wrong."""
        return True

    def _voice_change(self, goal: Goal) -> str:
        if goal.change is None or self.at in self.changed:
            return ""
        self.changed.add(self.at)
        return self._tell(goal, [goal.change.slot], act="change")

    def _answer_report(self, goal: Goal) -> Answer:
        self.consented = self.wrote = False
        change = self._voice_change(goal)
        if change:  # it was done without asking: the user says so now, which may be too late
            return self._phrase("late", facts=change), None, ("inject:mind_change",)
        return self._next("")

    def _next(self, lead: str) -> Answer:
        """Close the open goal and go on to the next one, or stop."""
        words = self._phrase(lead) + " " if lead else ""
        self.at += 1
        self.patience, self.consented, self.wrote = PATIENCE, False, False
        if self.at >= len(self.goals):
            return words + self._phrase("no_thanks"), EndReason.USER_STOP, ()
        return words + self._phrase("next") + self._open(), None, ()

    def _inform(self, goal: Goal, asked: Sequence[str]) -> Answer:
        parts = []
        repeated = all((s, value_text(self._current(goal)[s])) in self.told for s in asked if s not in goal.unknown)
        for slot in asked:
            if slot in goal.unknown:
                parts.append(self.rng.choice(self.language.slots[slot].dont_know).format(hint=goal.unknown[slot]))
            else:
                parts.append(self._tell(goal, [slot]))
        words = " ".join(parts)
        return self._impatient(words) if repeated else (words, None, ())

    def _insist(self, goal: Goal) -> Answer:
        """Not understood, or the agent moved on too early: say again what is wanted."""
        return self._impatient(self._phrase("unclear", goal=self._restate(goal)))

    def _restate(self, goal: Goal) -> str:
        """The open request with the facts told so far."""
        intent = self.language.intents[goal.intent]
        known = [s for s in intent.slots if (s, value_text(self._current(goal)[s])) in self.told]
        return f"{self.rng.choice(intent.open)} {self._tell(goal, known)}".strip()

    def _tell_more(self, goal: Goal) -> Answer:
        """Asked for details without a name: one fact that was not told yet, or the whole request again."""
        current = self._current(goal)
        slots = self.language.intents[goal.intent].slots
        left = [s for s in slots if s not in goal.unknown and (s, value_text(current[s])) not in self.told]
        return (self._tell(goal, left[:1]), None, ()) if left else self._insist(goal)

    def _impatient(self, words: str) -> Answer:
        """A turn that brought nothing. Who waits for what they agreed to does not leave: the agent's limits end
        that."""
        self.patience -= 1
        if self.patience <= 0 and not self.consented:
            return self._leave()
        return words, None, ()

    def _leave(self) -> Answer:
        return self._phrase("leave"), EndReason.USER_STOP, ()


class AgendaUsers:
    """Opens scripted users; needs the domain's language, which built-in scenarios carry.

    `injectors` maps the names of `users.injectors.Injector` to rates: the share of episodes in which each is armed.
    """

    def __init__(self, language: Language, injectors: Mapping[str, float] | None = None) -> None:
        from muarl_cli.users.injectors import rates_from

        self.language = language
        self.rates = rates_from(injectors or {}, language)

    @property
    def info(self) -> Mapping[str, Any]:
        armed = {"injectors": {name.value: rate for name, rate in self.rates.items()}} if self.rates else {}
        return {"backend": "scripted", "model": "agenda/1", "prompt_hash": "", **armed}

    def open(self, stage: Stage, task: Task) -> AgendaUser:
        if not self.rates:
            return AgendaUser(self.language, goals_of(task.brief), stage.seed)
        from muarl_cli.users.injectors import InjectedUser

        return InjectedUser(self.language, goals_of(task.brief), stage.seed, self.rates)
