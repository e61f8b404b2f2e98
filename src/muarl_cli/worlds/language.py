"""The language of a domain: how its slots are asked for and told, and how its intents are opened, proposed and
reported.

Both scripted parties speak and understand through this one table, so that what the agent says about an intent is what
the user can check. Invariant: whether a value was said is decided on whole words, so "2" is never heard in "order
4821".
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any


def value_text(value: Any) -> str:
    """A slot value in words: an object is its fields, in their order, separated by blanks."""
    if type(value) is not str and isinstance(value, Mapping):
        return " ".join(value_text(v) for v in value.values())
    return str(value)


def said(value: Any, text: str) -> bool:
    """Whether every part of the value stands in the text as whole words, whatever the case."""
    if type(value) is not str and isinstance(value, Mapping):
        return all(_stands(value_text(part), text) for part in value.values())
    return _stands(str(value), text)


def _stands(phrase: str, text: str) -> bool:
    if phrase.isascii() and text.isascii() and phrase.lower() not in text.lower():
        return False  # what the pattern would find out at ten times the cost
    return _whole(phrase).search(text) is not None


@lru_cache(maxsize=65536)
def _whole(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w@]){re.escape(phrase)}(?![\w@])", re.IGNORECASE)


@dataclass(frozen=True)
class Slot:
    """One thing an intent needs to know."""

    name: str
    words: str
    """how it is named when it is asked for: "the order id" """
    hear: str
    """a pattern by which a question about it is recognised"""
    tell: tuple[str, ...]
    """how the user tells it; {v} is the value"""
    dont_know: tuple[str, ...] = ()
    """how the user says that they do not know it; {hint} is what they know instead"""
    change: tuple[str, ...] = ()
    """how the user changes their mind about it; {v} is the new value"""
    search: str = ""
    """the tool that finds it where the user does not know it"""
    search_arguments: tuple[str, ...] = ()
    """the slots that tool needs"""
    search_template: Mapping[str, Any] = field(default_factory=dict)
    """its arguments as templates, where they are not the slots themselves"""


@dataclass(frozen=True)
class Intent:
    """One thing a user may want: what it needs, which read stands before it, which write carries it out."""

    name: str
    slots: tuple[str, ...]
    read: str
    """the tool that must be read before the write"""
    read_arguments: tuple[str, ...]
    write: str
    write_arguments: Mapping[str, str]
    """argument name to a template of one slot ("{order_id}") or a dotted nesting ("contact.email")"""
    open: tuple[str, ...]
    propose: str
    done: str
    refuse: str = ""
    changes: tuple[str, ...] = ()
    """slots about which a user may change their mind"""
    then_transfer: bool = False
    """the write is followed by a hand-over, which ends the conversation"""
    weight: float = 1.0
    look: Mapping[str, Any] = field(default_factory=dict)
    """arguments of the read as templates, for tools whose arguments are not slots (a query, a path)"""
    steps: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """the writes as (tool, argument templates), one after the other; none where `write_arguments` says it all"""
    derived: Mapping[str, str] = field(default_factory=dict)
    """what the agent takes from the answer to the read: name to a pattern whose first group it is; slots may stand in
    the pattern. An intent that writes nothing asks for the one called "answer"."""

    @property
    def asks(self) -> bool:
        """Whether the user wants to be told something and nothing done."""
        return not self.write


@dataclass(frozen=True)
class Language:
    """A domain's table, and the phrases that all its intents share."""

    slots: Mapping[str, Slot]
    intents: Mapping[str, Intent]
    phrases: Mapping[str, tuple[str, ...]]
    injections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """what the user says where an injector fires (`users.injectors`), and "decline", how the agent says no to it"""

    @cached_property
    def ordinary(self) -> str:
        """The domain's own sentences: phrases, openings, and how values are told."""
        return " ".join(
            (
                *(line for lines in self.phrases.values() for line in lines),
                *(line for intent in self.intents.values() for line in intent.open),
                *(line for slot in self.slots.values() for line in (*slot.tell, *slot.change, *slot.dont_know)),
            )
        )

    def phrase(self, name: str, rng: random.Random, **values: str) -> str:
        return rng.choice(self.phrases[name]).format(**values)

    def fill(self, template: str, slots: Mapping[str, Any]) -> str:
        return template.format(**{name: value_text(value) for name, value in slots.items()})

    def rivals(self, intent: Intent) -> list[Intent]:
        """Other intents that open with the same words: what a read says, and the policy, decide between them."""
        return [other for other in self.intents.values() if other is not intent and other.open == intent.open]

    def search_call(self, slot: Slot, slots: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the search for an unknown slot."""
        if slot.search_template:
            return dict(filled(slot.search_template, slots))
        return {name: slots[name] for name in slot.search_arguments}

    def read_call(self, intent: Intent, slots: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the read that stands before the intent's write."""
        return (
            dict(filled(intent.look, slots)) if intent.look else {name: slots[name] for name in intent.read_arguments}
        )

    def derive(self, intent: Intent, slots: Mapping[str, Any], answer: str) -> dict[str, str]:
        """What the answer to the read gives away; names whose pattern is not found there are left out."""
        values = {name: re.escape(value_text(value)) for name, value in slots.items()}
        found = {}
        for name, pattern in intent.derived.items():
            for slot, value in values.items():
                pattern = pattern.replace("{" + slot + "}", value)
            if match := re.search(pattern, answer, re.IGNORECASE):
                found[name] = match.group(1)
        return found

    def writes(self, intent: Intent, slots: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The calls that carry the intent out, in order, with the values of its slots; none for one that only asks."""
        if intent.steps:
            return [(tool, dict(filled(template, slots))) for tool, template in intent.steps]
        return [] if intent.asks else [(intent.write, self.write_call(intent, slots))]

    def write_call(self, intent: Intent, slots: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the intent's (first) write, with the values of its slots."""
        if intent.steps:
            return dict(filled(intent.steps[0][1], slots))
        arguments: dict[str, Any] = {}
        for place, slot in intent.write_arguments.items():
            *outer, last = place.split(".")
            target = arguments
            for name in outer:
                target = target.setdefault(name, {})
            target[last] = slots[slot]
        return arguments


_PLACE = re.compile(r"\{(\w+)\}")


def filled(template: Any, slots: Mapping[str, Any]) -> Any:
    """A template with its places filled: text that is one place alone becomes the value as it is, 7 and not "7"."""
    if isinstance(template, str):
        whole = _PLACE.fullmatch(template)
        if whole:
            return slots[whole.group(1)]
        return _PLACE.sub(lambda place: value_text(slots[place.group(1)]), template)
    if isinstance(template, Mapping):
        return {name: filled(part, slots) for name, part in template.items()}
    return [filled(part, slots) for part in template] if isinstance(template, list) else template


def places(template: Any) -> tuple[str, ...]:
    """The slots a template needs, in order."""
    if isinstance(template, str):
        return tuple(dict.fromkeys(_PLACE.findall(template)))
    parts = template.values() if isinstance(template, Mapping) else template if isinstance(template, list) else ()
    return tuple(dict.fromkeys(name for part in parts for name in places(part)))


_INTENT_KEYS = {
    "slots", "read", "write", "open", "propose", "done", "refuse", "changes", "then_transfer", "weight",
    "look", "steps", "derived",
}  # fmt: skip


def language_from(data: Mapping[str, Any]) -> Language:
    """The table from a domain's YAML; a missing or unknown key is an error of the domain's author.

    `read` and `write` map a tool to slots; `look` and `steps` map tools to argument templates instead.
    """
    slots = {name: _slot_from(name, row) for name, row in data["slots"].items()}
    intents = {}
    for name, row in data["intents"].items():
        if extra := set(row) - _INTENT_KEYS:
            raise ValueError(f"intent {name}: unknown keys {sorted(extra)}")
        read_tool, read_arguments = next(iter((row["look"] if "look" in row else row["read"]).items()))
        steps = [next(iter(step.items())) for step in row.get("steps", ())]
        write_tool, write_arguments = next(iter(row["write"].items())) if "write" in row else ("", {})
        intents[name] = Intent(
            name,
            tuple(row["slots"]),
            read_tool,
            places(read_arguments) if "look" in row else tuple(read_arguments),
            steps[0][0] if steps else write_tool,
            dict(write_arguments),
            tuple(row["open"]),
            row["propose"] if write_tool or steps else "",
            row["done"],
            row.get("refuse", ""),
            tuple(row.get("changes", ())),
            bool(row.get("then_transfer", False)),
            float(row.get("weight", 1.0)),
            dict(read_arguments) if "look" in row else {},
            tuple((tool, dict(template)) for tool, template in steps),
            dict(row.get("derived", {})),
        )
    phrases = {name: tuple(options) for name, options in data["phrases"].items()}
    injections = {name: tuple(options) for name, options in data.get("injections", {}).items()}
    return Language(slots, intents, phrases, injections)


def _slot_from(name: str, row: Mapping[str, Any]) -> Slot:
    known = {"words", "hear", "tell", "dont_know", "change", "search"}
    if extra := set(row) - known:
        raise ValueError(f"slot {name}: unknown keys {sorted(extra)}")
    search, search_arguments = next(iter(row["search"].items())) if "search" in row else ("", ())
    by_template = isinstance(search_arguments, Mapping)
    return Slot(
        name,
        row["words"],
        row["hear"],
        tuple(row["tell"]),
        tuple(row.get("dont_know", ())),
        tuple(row.get("change", ())),
        search,
        places(search_arguments) if by_template else tuple(search_arguments),
        dict(search_arguments) if by_template else {},
    )
