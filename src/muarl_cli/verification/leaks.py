"""Leaks of what only the user is told: the instruction recited, or a value of it known before its time.

The user's instruction speaks to the user ("you change your mind when ..."); whoever says it in those words has recited
it. Values of the task that nobody has said and no tool returned can only be known from the instruction. Invariant: what
stands in the policy, in a tool's schema, in the user's words or in an answer is never a leak.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.scoring.values import names
from muarl_cli.users.state import template
from muarl_cli.verification.subject import Filter, Reason, Subject
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import value_text

RUN = 8
"""this many words of an instruction in a row are recited"""
_TO_THE_USER = frozenset({"you", "your", "yours", "you're", "yourself"})
_ABOUT_IT = re.compile(
    r"\b(?:my|the|your) (?:instructions?|scenario|persona|script|role ?-?play|brief)"
    r" (?:says?|said|tells?|states?|is to)\b"
    r"|\bsimulated (?:user|customer)\b|</?(?:scenario|persona|instructions?)>",
    re.I,
)


def leak(subject: Subject) -> list[Reason]:
    """Nobody recites the instruction, and the agent knows no value that stands only there."""
    if subject.task is None:
        return []
    brief = _brief(subject)
    hidden = hidden_values(subject)
    known = subject.given
    found: list[Reason] = []
    for event in subject.episode.events:
        if event.kind is Kind.SAY and "greeting" not in event.tags:
            own = _runs(event.text)
            recited = own & brief
            if recited and event.actor is Actor.AGENT:
                recited -= _runs(known)
            if recited or own & _rules() or _ABOUT_IT.search(event.text):
                who = "the user" if event.actor is Actor.USER else "the agent"
                found.append(Reason(Filter.LEAK, "recited", f"{who} recites the user's instruction", event.i))
        if event.actor is Actor.AGENT:
            said = event.text if event.kind is Kind.SAY else json.dumps(_arguments(event), ensure_ascii=False)
            early = [value for value in hidden if names(value, said) and not names(value, known)]
            if early:
                shown = ", ".join(value_text(value) for value in early)
                found.append(Reason(Filter.LEAK, "hidden_value", f"knows {shown} before it was said", event.i))
        elif event.kind in (Kind.SAY, Kind.RESULT, Kind.ERROR):
            known = f"{known}\n{event.text}"
    return found


def hidden_values(subject: Subject) -> list[Any]:
    """The values of the task that are the user's to tell; none where the user is no agenda."""
    if subject.task is None or "goals" not in subject.task.brief:
        return []
    found: dict[str, Any] = {}
    for goal in goals_of(subject.task.brief):
        for row in (goal.slots, goal.final):
            for value in row.values():
                parts = list(value.values()) if isinstance(value, dict) else [value]
                found.update({value_text(part): part for part in parts if not _is_count(part)})
    return list(found.values())


def _is_count(value: Any) -> bool:
    """Small numbers stand everywhere by chance; the rules see to it that they are the agreed ones."""
    return isinstance(value, (int, float)) and abs(value) <= 12


def _arguments(event: Any) -> Any:
    return dict(event.call.arguments) if event.call and event.call.arguments else {}


def _brief(subject: Subject) -> frozenset[tuple[str, ...]]:
    """The runs of the instruction that speak to the user: no user would say them of themselves."""
    lines = subject.scenario.user_prompt(subject.task).splitlines()
    runs = frozenset(run for line in lines for run in _runs(line) if _TO_THE_USER & set(run))
    language = getattr(subject.scenario, "language", None)
    intents = language.intents.values() if language is not None else ()
    return runs - _openings(tuple(line for intent in intents for line in intent.open))


@lru_cache(maxsize=64)
def _openings(lines: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """The runs of what the users of a scripted scenario open with; their instruction quotes it."""
    return frozenset(run for line in lines for run in _runs(line))


@lru_cache(maxsize=1)
def _rules() -> frozenset[tuple[str, ...]]:
    """The runs of the prompts that tell a model how to play a user."""
    return _runs(template("user.jinja")) | _runs(template("user_wording.jinja"))


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"[\w'#@]+", text.lower())
    return frozenset(tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
