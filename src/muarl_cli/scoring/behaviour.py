"""Behaviour that only a scenario's rules and tasks can tell: escalation against gold, questions for known facts,
guards.

What the event list alone shows is counted in `metrics.py`; this adds what needs to know what was wanted. Invariant: one
episode gives integers, and every rate is a quotient of two sums of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import ToolClass
from muarl_cli.scoring.findings import Layered, Verdict
from muarl_cli.scoring.metrics import Counts, count
from muarl_cli.scoring.recovery import guarded
from muarl_cli.scoring.rules import Rulebook
from muarl_cli.scoring.trace import Trace, read
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import Language, said
from muarl_cli.worlds.scenario import Task


@dataclass(frozen=True)
class Conduct:
    """What one episode (or several, added up) held."""

    writes: int = 0
    confirmed: int = 0
    """writes that the scenario's confirm rule passes"""
    handed_over: int = 0
    should_hand_over: int = 0
    """the gold calls hold a hand-over"""
    rightly_handed_over: int = 0
    asked: int = 0
    """slots asked for, one by one"""
    asked_known: int = 0
    """of these, slots whose value the user had told before"""
    refused_by_guard: int = 0

    def __add__(self, other: Conduct) -> Conduct:
        return Conduct(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """Counts and their quotients; None where there is nothing to divide by."""
        return {
            "writes": self.writes,
            "confirmed_writes": self.confirmed,
            "confirmation_discipline": _rate(self.confirmed, self.writes),
            "handed_over": self.handed_over,
            "should_hand_over": self.should_hand_over,
            "escalation_precision": _rate(self.rightly_handed_over, self.handed_over),
            "escalation_recall": _rate(self.rightly_handed_over, self.should_hand_over),
            "slots_asked": self.asked,
            "known_facts_asked": self.asked_known,
            "known_fact_share": _rate(self.asked_known, self.asked),
            "writes_refused_by_guard": self.refused_by_guard,
        }


def conduct(book: Rulebook, episode: Episode, task: Task | None, layered: Layered) -> tuple[Conduct, Counts]:
    """The conduct of one valid episode, and its counts from the events alone."""
    trace = read(episode.events)
    rules = {rule.id for rule in book.rules if rule.kind == "confirm"}
    writes = [f for f in layered.findings if f.rule in rules and f.verdict is not Verdict.NA]
    handed = any(step.klass is ToolClass.TERMINAL and step.ok for step in trace.steps)
    terminal = {step.name for step in trace.steps if step.klass is ToolClass.TERMINAL} | set(book.terminal)
    wanted = task is not None and any(call.name in terminal for call in task.gold)
    asked, known = _questions(book.language, task, trace)
    own = Conduct(
        writes=len(writes),
        confirmed=sum(f.verdict is Verdict.PASS for f in writes),
        handed_over=int(handed),
        should_hand_over=int(wanted),
        rightly_handed_over=int(handed and wanted),
        asked=asked,
        asked_known=known,
        refused_by_guard=sum(bool(guarded(step)) for step in trace.steps),
    )
    return own, count(episode.events)


def _questions(language: Language | None, task: Task | None, trace: Trace) -> tuple[int, int]:
    """How many slots the agent asked for, and of how many the value had been told; needs a domain's language."""
    if language is None or task is None or "goals" not in task.brief:
        return 0, 0
    from muarl_cli.users.hearing import Act, hear

    goals = goals_of(task.brief)
    patterns = {name: slot.hear for name, slot in language.slots.items()}
    asked = known = 0
    for line in trace.agent:
        told = [u.text for u in trace.user if u.at < line.at]
        goal = goals[_open_goal(language, goals, told)]
        values = (goal.slots, goal.final)
        act, slots = hear(line.text, language.intents[goal.intent].slots, patterns, values, False)
        if act is not Act.ASK:
            continue
        for slot in slots:
            asked += 1
            known += any(said(row[slot], text) for row in values for text in told)
    return asked, known


def _open_goal(language: Language, goals: Sequence[Goal], told: Sequence[str]) -> int:
    """Which goal the user talks about: the last one, in order, that was opened."""
    at = 0
    for text in told:
        following = goals[at + 1 : at + 2]
        if any(opening in text for goal in following for opening in language.intents[goal.intent].open):
            at += 1
    return at


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
