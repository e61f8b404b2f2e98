"""Scripted agents: what an agent that follows the policy does, and what one that does not.

They speak through the domain's language table and act only on what was said or read: a slot's value is known once the
user said it (or a tool returned it), never before. `careful` reads, proposes, waits for a yes, writes, reports; `hasty`
leaves the proposal out; `oracle` is careful and writes the gold values whatever it heard.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import Intent, Language, said, value_text
from muarl_cli.worlds.scenario import Task

_YES = re.compile(r"\b(yes|correct|go ahead|sure|ok|please do)\b", re.I)
TO_DECLINE = ("unavailable_service", "other_customer", "claims_staff", "pasted_instruction", "skip_confirmation")
"""injections of the user that are answered by a no"""
_NO = re.compile(r"no\b", re.I)


class Manner(StrEnum):
    """How a scripted agent goes about it."""

    ORACLE = "oracle"
    CAREFUL = "careful"
    HASTY = "hasty"


class Step(StrEnum):
    """Where the agent stands with the open goal."""

    GATHER = "gather"
    PROPOSED = "proposed"
    WRITTEN = "written"
    CLOSED = "closed"


class ScriptedAgent:
    """A scripted agent in one episode."""

    def __init__(self, language: Language, goals: Sequence[Goal], manner: Manner, seed: int) -> None:
        self.language = language
        self.goals = goals
        self.manner = manner
        self.rng = random.Random(derive_seed(seed, "agent"))
        self.at = 0
        self.step = Step.GATHER
        self.heard = ""
        """what the user said about the open goal"""
        self.before = ""
        """what the user said about earlier goals"""
        self.reads: set[str] = set()
        """reads made, as text"""
        self.searched = False
        self.found = ""
        """what tools returned about the open goal"""
        self.calls = 0
        self.owed: list[tuple[str, dict[str, Any]]] = []
        """writes that the open goal still takes"""
        self.pushed = False
        """the user asked for something that has to be declined, and was not told so yet"""

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        words = " ".join(e.text for e in news if e.actor is Actor.USER)
        answers = [e for e in news if e.actor is Actor.WORLD]
        self.found += " ".join(e.text for e in answers)
        if words:
            if self.step is Step.CLOSED and not self._reopened(words):
                self._next_goal()
            self.heard += " " + words
            self.pushed = self.pushed or self._out_of_line(words)
        turn = self._turn(words, answers)
        if self.pushed and turn.text:
            self.pushed = False
            decline = self.rng.choice(self.language.injections["decline"])
            return replace(turn, text=f"{decline} {turn.text}")
        return turn

    def give_up(self) -> AgentTurn:
        """Close the open goal, whose tools are out of reach, and say so."""
        self.step = Step.CLOSED
        return AgentTurn(self._phrase("failed"))

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held."""

    def _out_of_line(self, words: str) -> bool:
        """The user asked for what the desk does not offer, or pushed against the policy."""
        return any(line in words for name in TO_DECLINE for line in self.language.injections.get(name, ()))

    def _reopened(self, words: str) -> bool:
        """The user changed their mind about what was just done: the goal is open again (and usually lost)."""
        change = self.goals[self.at].change
        if change is None or not said(change.value, words) or self._moved_on(words):
            return False
        self.step = Step.GATHER
        return True

    def _moved_on(self, words: str) -> bool:
        """The user opened the next goal, which may well have a value that an earlier one had."""
        following = self.goals[self.at + 1 : self.at + 2]
        return any(opening in words for goal in following for opening in self.language.intents[goal.intent].open)

    def _next_goal(self) -> None:
        if self.at + 1 < len(self.goals):
            self.at += 1
            self.before += self.heard
            self.heard, self.found, self.searched = "", "", False
        self.step = Step.GATHER

    def _turn(self, words: str, answers: list[Event]) -> AgentTurn:
        goal = self.goals[self.at]
        intent = self.language.intents[goal.intent]
        values = self._values(goal, intent)
        if self.step is Step.WRITTEN:
            return self._after_write(intent, values, answers[-1])
        if self.step is Step.PROPOSED and words:
            if self._agreed(words, goal, intent, values):
                return self._write(goal, intent, values)
            self.step = Step.GATHER
        missing = [s for s in intent.slots if s not in values]
        if missing:
            return self._ask_or_search(goal, intent, values, missing, words)
        read = self._read(intent, values)
        if read is not None:
            return read
        if goal.refused or (answers and answers[-1].kind is Kind.ERROR):
            self.step = Step.CLOSED
            return AgentTurn(self._phrase("sorry", refuse=self.language.fill(intent.refuse, values)))
        if intent.derived:
            values |= self.language.derive(intent, values, self.found)
        if intent.asks:
            return self._tell(intent, values)
        if self.manner is Manner.HASTY:
            return self._write(goal, intent, values)
        self.step = Step.PROPOSED
        return AgentTurn(self._phrase("confirm", propose=self.language.fill(intent.propose, values)))

    def _phrase(self, name: str, **values: str) -> str:
        return self.language.phrase(name, self.rng, **values)

    def _values(self, goal: Goal, intent: Intent) -> dict[str, Any]:
        """Slot values the agent can know by now."""
        values = {}
        for slot in intent.slots:
            first, final = goal.slots[slot], goal.final[slot]
            if final != first and said(final, self._since_first(first)):
                values[slot] = final
            elif self._known(slot, first, goal, intent):
                values[slot] = first
        return values

    def _known(self, slot: str, value: Any, goal: Goal, intent: Intent) -> bool:
        """Said about this goal; or, where it names a record, about an earlier one; or found by a search."""
        if said(value, self.heard) or (slot in intent.read_arguments and said(value, self.before)):
            return True
        return slot in goal.unknown and self.searched and said(value, self.found)

    def _since_first(self, first: Any) -> str:
        """What was said after the first value: a change counts only then ("2" may stand in an earlier sentence)."""
        place = self.heard.rfind(value_text(first))
        return self.heard[place + len(value_text(first)) :] if place >= 0 else self.heard

    def _agreed(self, words: str, goal: Goal, intent: Intent, values: Mapping[str, Any]) -> bool:
        """A yes, and no value in the same breath that differs from the proposed ones."""
        if goal.change and said(goal.change.value, words):
            return False
        return _YES.search(words) is not None and _NO.match(words) is None

    def _ask_or_search(
        self, goal: Goal, intent: Intent, values: Mapping[str, Any], missing: list[str], words: str
    ) -> AgentTurn:
        unknown = [s for s in missing if s in goal.unknown]
        hinted = [s for s in unknown if goal.unknown[s] in self.heard]
        slot = self.language.slots[hinted[0]] if hinted else None
        if slot and slot.search and all(name in values for name in slot.search_arguments):
            self.searched = True
            return self._call(slot.search, self.language.search_call(slot, values))
        wanted = [s for s in missing if s not in hinted] or missing
        names = [self.language.slots[s].words for s in wanted]
        return AgentTurn(self._phrase("ask", slots=" and ".join(names)))

    def _read(self, intent: Intent, values: Mapping[str, Any]) -> AgentTurn | None:
        arguments = self.language.read_call(intent, values)
        # what is taken from an answer must be fresh: an earlier request may have changed it
        key = f"{self.at if intent.derived else ''}{intent.read} {arguments}"
        if key in self.reads:
            return None
        self.reads.add(key)
        return self._call(intent.read, arguments)

    def _write(self, goal: Goal, intent: Intent, values: Mapping[str, Any]) -> AgentTurn:
        if self.manner is Manner.ORACLE:  # a change that was not voiced yet is not wanted yet
            values = goal.final | ({goal.change.slot: values[goal.change.slot]} if goal.change else {})
        elif intent.derived:
            values = {**values, **self.language.derive(intent, values, self.found)}
        self.step = Step.WRITTEN
        (tool, arguments), *self.owed = self.language.writes(intent, values)
        return self._call(tool, arguments)

    def _tell(self, intent: Intent, values: Mapping[str, Any]) -> AgentTurn:
        """The answer to a question, where the read gave one."""
        self.step = Step.CLOSED
        if "answer" not in values:
            return AgentTurn(self._phrase("failed"))
        return AgentTurn(self._phrase("answer", done=self.language.fill(intent.done, values)))

    def _after_write(self, intent: Intent, values: Mapping[str, Any], answer: Event) -> AgentTurn:
        self.step = Step.CLOSED
        if answer.kind is Kind.ERROR:
            return AgentTurn(self._phrase("failed"))
        if self.owed:
            self.step = Step.WRITTEN
            return self._call(*self.owed.pop(0))
        if intent.then_transfer:
            return self._call("transfer_to_human_agents", {"summary": value_text(values.get("topic", intent.name))})
        return AgentTurn(self._phrase("report", done=self.language.fill(intent.done, values)))

    def _call(self, name: str, arguments: Mapping[str, Any]) -> AgentTurn:
        self.calls += 1
        return AgentTurn(calls=(ToolCall(f"call_{self.calls - 1}", name, arguments),))


class ScriptedAgents:
    """Opens scripted agents of one manner."""

    def __init__(self, language: Language, manner: Manner) -> None:
        self.language, self.manner = language, manner

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "model": self.manner.value, "revision": "1", "weight_version": ""}

    def open(self, stage: Stage, task: Task) -> ScriptedAgent:
        return ScriptedAgent(self.language, goals_of(task.brief), self.manner, stage.seed)
