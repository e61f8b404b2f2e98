"""What a person wanted and how they said it, read off a redacted chat with a domain's table of slots and intents.

Requests are recognised by the words in which the domain opens them, facts by the slots' values: a placeholder that
redaction left ("[ORDER_ID]"), a word that the domain knows, or a number where one was asked for or is named.
Invariants: where nothing is recognised there is no request; the same chat gives the same observation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from muarl_cli.conversation.events import Actor
from muarl_cli.users.hearing import Act, hear
from muarl_cli.users.style import words_of
from muarl_cli.users.transcripts import Chat
from muarl_cli.worlds.goals import Change, Goal, goals_of
from muarl_cli.worlds.imported import Shape
from muarl_cli.worlds.language import Intent, Language, said, value_text
from muarl_cli.worlds.scenario import Scenario

NOT_SAID = "(not said)"
"""the value of a fact that the chat does not hold"""
COMMON = 3
"""a word in the openings of this many intents tells none of them apart"""
ENOUGH_TASKS = 300
_ALSO = re.compile(r"\b(also|another|one more|next|besides|as well)\b", re.I)
_CHANGE = re.compile(r"\b(actually|changed my mind|instead|rather|wait|on second thought)\b", re.I)
_UNKNOWN = re.compile(
    r"\b(do ?n[o']?t|do not|can'?t|cannot) (know|have|remember|find|recall)|\bno idea\b|not sure", re.I
)
_HOLDER = re.compile(r"[\[<{]{1,2}\s*([A-Za-z][A-Za-z _-]{1,40}?)[ _-]?\d*\s*[\]>}]{1,2}")
_NUMBER = re.compile(r"(?<![\w.])#?(\d+)(?![\w])")


@dataclass
class Request:
    """One request, as far as the chat has come."""

    intent: Intent
    first: dict[str, str] = field(default_factory=dict)
    """slot to the value that was told first"""
    last: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """slots told before the agent said anything about it"""
    unknown: list[str] = field(default_factory=list)
    change: str = ""
    refused: bool = False

    def shape(self) -> Shape:
        return Shape(self.intent.name, tuple(self.told), tuple(self.unknown), self.change, self.refused)

    def goal(self) -> Goal:
        """The request with the words of the chat as values."""
        slots = {slot: self.first.get(slot, NOT_SAID) for slot in self.intent.slots}
        unknown = {slot: NOT_SAID for slot in slots if slot in self.unknown or slot not in self.first}
        change = Change(self.change, self.last[self.change]) if self.change else None
        return Goal(self.intent.name, slots, tuple(self.told), unknown, change, "refused" if self.refused else "")


class Reader:
    """Reads chats with the table of one scenario."""

    def __init__(self, language: Language, scenario: Scenario, split: str) -> None:
        self.language = language
        self._patterns = {name: slot.hear for name, slot in language.slots.items()}
        values: dict[str, set[str]] = {}
        for task in scenario.tasks(split)[:ENOUGH_TASKS]:
            for goal in goals_of(task.brief):
                for slot, value in goal.final.items():
                    values.setdefault(slot, set()).add(value_text(value))
        self._numbers = {slot for slot, some in values.items() if all(text.isdigit() for text in some)}
        """slots whose values are numbers"""
        self._values = {slot: sorted(some) for slot, some in values.items()}

    @cached_property
    def _telling(self) -> dict[str, frozenset[str]]:
        """By intent, the words that tell it from the others, and from talk about nothing in particular."""
        found = {name: set(words_of(" ".join(intent.open))) for name, intent in self.language.intents.items()}
        count = Counter(word for words in found.values() for word in words)
        talk = [
            line
            for lines in (self.language.phrases, self.language.injections)
            for some in lines.values()
            for line in some
        ]
        common = {word for word, times in count.items() if times >= COMMON} | set(words_of(" ".join(talk)))
        return {name: frozenset({w for w in words - common if len(w) > 2} | {name}) for name, words in found.items()}

    def intent_of(self, text: str) -> Intent | None:
        """The intent that a message raises: most telling words, its own name twice, the first of equals; None without
        any."""
        words = set(words_of(text))
        scores = {name: len(words & telling) + (name in words) for name, telling in self._telling.items()}
        name, score = max(scores.items(), key=lambda pair: pair[1])
        return self.language.intents[name] if score else None

    def requests(self, chat: Chat) -> list[Request]:
        """What the person asked for, in order."""
        found: list[Request] = []
        heard, done, agent_spoke = "", False, False
        for message in chat.messages:
            if message.actor is Actor.AGENT:
                act = self._act(found[-1], message.text) if found else Act.MORE
                if found and act is Act.REFUSAL:
                    found[-1].refused = True
                done = done or act in (Act.REPORT, Act.REFUSAL, Act.MORE)
                heard, agent_spoke = message.text, True
                continue
            if not found or done or _ALSO.search(message.text):
                intent = self.intent_of(message.text)
                if intent is not None and intent.name not in {r.intent.name for r in found}:
                    found.append(Request(intent))
                    done, agent_spoke, heard = False, False, ""
            if found:
                self._take(found[-1], message.text, heard, opening=not agent_spoke)
        return found

    def _act(self, request: Request, text: str) -> Act:
        rows = [{slot: row.get(slot, NOT_SAID) for slot in request.intent.slots} for row in (request.first,)]
        return hear(text, request.intent.slots, self._patterns, rows, True).act

    def _take(self, request: Request, text: str, heard: str, opening: bool) -> None:
        """The facts of one message."""
        asked = [s for s in request.intent.slots if re.search(self._patterns[s], heard, re.I)]
        taken: set[str] = set()
        for slot in request.intent.slots:
            value = self._value(slot, text, slot in asked, taken)
            if value:
                taken.add(value)
                self._tell(request, slot, value, bool(_CHANGE.search(text)), opening)
        if _UNKNOWN.search(text):
            named = [s for s in request.intent.slots if re.search(self._patterns[s], text, re.I)]
            missing = [s for s in named or asked if s not in request.first and s not in request.unknown]
            request.unknown += missing[:1]

    def _tell(self, request: Request, slot: str, value: str, changing: bool, opening: bool) -> None:
        if slot not in request.first:
            request.first[slot] = request.last[slot] = value
            if opening:
                request.told.append(slot)
        elif value != request.last[slot] and changing and slot in request.intent.changes:
            request.change, request.last[slot] = slot, value

    def _value(self, slot: str, text: str, asked: bool, taken: set[str]) -> str:
        """The value of a slot in a message, "" for none."""
        for holder in _HOLDER.finditer(text):
            name = re.sub(r"[_-]", " ", holder[1]).strip().lower()
            if name in (slot, slot.replace("_", " ")) or re.search(self._patterns[slot], name):
                return "" if holder[0] in taken else holder[0]
        if slot in self._numbers:
            named = re.search(self._patterns[slot], text, re.I) or re.search(rf"\b{slot.split('_')[0]}\b", text, re.I)
            free = [number for number in _NUMBER.findall(text) if number not in taken]
            return free[0] if free and (asked or named) else ""
        known = self._values.get(slot, ())
        return next((value for value in known if value not in taken and said(value, text)), "")


def shapes_of(chats: Mapping[str, Sequence[Request]]) -> dict[str, tuple[Shape, ...]]:
    """The shapes of the chats in which something was recognised."""
    return {name: tuple(request.shape() for request in some) for name, some in chats.items() if some}
