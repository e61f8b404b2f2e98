"""Behaviour that only a scenario's rules and tasks can tell: escalation against gold, questions for known facts,
guards.

What the event list alone shows is counted in `metrics.py`; this adds what needs to know what was wanted. Invariant: one
episode gives integers, and every rate is a quotient of two sums of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import ToolClass
from muarl_cli.hashing import canonical_json
from muarl_cli.scoring.confirm import Consent, consents
from muarl_cli.scoring.findings import Layered, Verdict
from muarl_cli.scoring.metrics import Counts, count
from muarl_cli.scoring.recovery import guarded
from muarl_cli.scoring.rules import Rulebook
from muarl_cli.scoring.safety import identity_of
from muarl_cli.scoring.trace import Trace, leaves, read
from muarl_cli.scoring.values import names
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import Language, said
from muarl_cli.worlds.scenario import Task


@dataclass(frozen=True)
class Conduct:
    """What one episode (or several, added up) held."""

    writes: int = 0
    confirmed: int = 0
    """writes that the scenario's confirm rule passes"""
    stale: int = 0
    """of the others, those with other values than the user said yes to"""
    implicit: int = 0
    """and those never proposed whose values the user had named"""
    batched: int = 0
    """confirmed by a yes that covered another write as well"""
    gold_writes: int = 0
    gold_writes_done: int = 0
    """gold writes that were made with exactly their arguments, whatever else was done: the partial outcome"""
    steps_to_write: int = 0
    """agent messages and calls from when the user had said the last value to the write, added up"""
    timed_writes: int = 0
    handover_items: int = 0
    """what the summaries of hand-overs should hold: who, which record, what was done"""
    handover_items_named: int = 0
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
            "stale_writes": self.stale,
            "implicit_writes": self.implicit,
            "batched_writes": self.batched,
            "gold_write_share": _rate(self.gold_writes_done, self.gold_writes),
            "steps_to_write": _rate(self.steps_to_write, self.timed_writes),
            "handed_over": self.handed_over,
            "should_hand_over": self.should_hand_over,
            "escalation_precision": _rate(self.rightly_handed_over, self.handed_over),
            "escalation_recall": _rate(self.rightly_handed_over, self.should_hand_over),
            "handover_coverage": _rate(self.handover_items_named, self.handover_items),
            "slots_asked": self.asked,
            "known_facts_asked": self.asked_known,
            "known_fact_share": _rate(self.asked_known, self.asked),
            "writes_refused_by_guard": self.refused_by_guard,
        }


def conduct(book: Rulebook, episode: Episode, task: Task | None, layered: Layered) -> tuple[Conduct, Counts]:
    """The conduct of one valid episode, and its counts from the events alone."""
    trace = read(episode.events)
    rules = [rule for rule in book.rules if rule.kind == "confirm"]
    ids = {rule.id for rule in rules}
    writes = [f for f in layered.findings if f.rule in ids and f.verdict is not Verdict.NA]
    given = Counter(consent for rule in rules for consent in consents(rule, trace))
    steps, timed = _steps_to_write(book.language, task, trace)
    items, named = _handover_items(book, trace)
    handed = any(step.klass is ToolClass.TERMINAL and step.ok for step in trace.steps)
    terminal = {step.name for step in trace.steps if step.klass is ToolClass.TERMINAL} | set(book.terminal)
    wanted = task is not None and any(call.name in terminal for call in task.gold)
    asked, known = _questions(book.language, task, trace)
    own = Conduct(
        writes=len(writes),
        confirmed=sum(f.verdict is Verdict.PASS for f in writes),
        stale=given[Consent.STALE],
        implicit=given[Consent.IMPLICIT],
        batched=given[Consent.BATCHED],
        gold_writes=len(task.gold_writes) if task else 0,
        gold_writes_done=_gold_done(task, trace),
        steps_to_write=steps,
        timed_writes=timed,
        handover_items=items,
        handover_items_named=named,
        handed_over=int(handed),
        should_hand_over=int(wanted),
        rightly_handed_over=int(handed and wanted),
        asked=asked,
        asked_known=known,
        refused_by_guard=sum(bool(guarded(step)) for step in trace.steps),
    )
    return own, count(episode.events)


def _gold_done(task: Task | None, trace: Trace) -> int:
    """How many of the gold writes took effect; one that is asked for twice has to be made twice."""
    wanted = Counter(canonical_json([call.name, dict(call.arguments)]) for call in (task.gold_writes if task else ()))
    return sum((wanted & Counter(step.key for step in trace.writes)).values())


def _steps_to_write(language: Language | None, task: Task | None, trace: Trace) -> tuple[int, int]:
    """(agent messages and calls from the last value to the write, such writes); needs a domain's language."""
    if language is None or task is None or "goals" not in task.brief:
        return 0, 0
    total = timed = 0
    for goal in goals_of(task.brief):
        intent = language.intents[goal.intent]
        write = language.write_call(intent, goal.final)
        key = canonical_json([intent.write, write])
        at = next((step.at for step in trace.writes if step.key == key), None)
        told = [
            next((line.at for line in trace.user if said(goal.final[slot], line.text)), None)
            for slot in intent.slots
            if slot not in goal.unknown
        ]
        if at is None or any(place is None or place > at for place in told):
            continue
        known = max((place for place in told if place is not None), default=0)
        total += len(trace.agent_between(known, at)) + sum(known < step.at < at for step in trace.steps)
        timed += 1
    return total, timed


def _handover_items(book: Rulebook, trace: Trace) -> tuple[int, int]:
    """(items that the summaries of hand-overs should hold, those that they hold): who the user is, the record that was
    looked at last, and the value that was written last."""
    owners = [rule for rule in book.rules if rule.kind == "owner"]
    wanted: list[Any] = [identity_of(rule, trace) for rule in owners]
    items = named = 0
    for step in trace.steps:
        if step.klass is not ToolClass.TERMINAL or not step.ok:
            continue
        summary = " ".join(str(leaf) for leaf in leaves(step.arguments))
        before = [other for other in trace.steps if other.at < step.at and other.ok]
        reads = [other for other in before if other.klass is ToolClass.READ and other.arguments]
        written = [other for other in before if other.effective]
        values = [value for value in wanted if value]
        values += [leaf for other in (*reads[-1:], *written[-1:]) for leaf in leaves(other.arguments)[-1:]]
        values = list(dict.fromkeys(str(value) for value in values))
        items += len(values)
        named += sum(names(value, summary) for value in values)
    return items, named


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
