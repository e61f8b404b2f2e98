"""How much of a scenario a set of tasks or trajectories exercises: its tools, the pairs of tools that meet in one task,
and what makes tasks hard (several intents, refusals, changes of mind).

A pair counts as possible where some task of the scenario needs both tools. Invariant: ordering for coverage leaves no
task out and adds none; it only brings forward those that need a tool or a pair not needed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.scenario import Task

Pair = tuple[str, str]
MIND_CHANGE = "inject:mind_change"
"""tag of a user's turn that changes what is wanted"""


def pairs_of(tools: Iterable[str]) -> set[Pair]:
    """The unordered pairs of different tools."""
    return set(combinations(sorted(set(tools)), 2))


def needed(task: Task) -> set[str]:
    """The tools that the reference path calls."""
    return {call.name for call in task.gold if call.requestor == "agent"}


def called(events: Sequence[Event]) -> set[str]:
    """The tools that the agent called, with success."""
    asked = {e.call.id for e in events if e.actor is Actor.AGENT and e.kind is Kind.CALL and e.call}
    return {e.call.name for e in events if e.kind is Kind.RESULT and e.call and e.call.id in asked}


def by_coverage(tasks: Sequence[Task]) -> list[Task]:
    """The same tasks: first those that need something new, in their order, then the rest, in theirs."""
    first: list[Task] = []
    rest: list[Task] = []
    tools: set[str] = set()
    pairs: set[Pair] = set()
    for task in tasks:
        own = needed(task)
        fresh = not own <= tools or not pairs_of(own) <= pairs
        (first if fresh else rest).append(task)
        tools |= own
        pairs |= pairs_of(own)
    return first + rest


@dataclass(frozen=True)
class Makeup:
    """What a task asks of an agent."""

    intents: int
    refused: bool
    changes: bool


def makeup(task: Task, events: Sequence[Event]) -> Makeup:
    """From the goals where the user has an agenda; else from the gold writes and what was tagged."""
    if "goals" in task.brief:
        goals = goals_of(task.brief)
        return Makeup(len(goals), any(g.refused for g in goals), any(g.change for g in goals))
    changed = any(tag.startswith(MIND_CHANGE) for event in events for tag in event.tags)
    return Makeup(max(1, len(task.gold_writes)), not task.gold_writes, changed)


def coverage(scenario: Any, tasks: Sequence[Task], talks: Iterable[Sequence[Event]]) -> dict[str, Any]:
    """Tools of the scenario and pairs that its tasks need, against what the conversations called."""
    every = {tool.name for tool in scenario.tools}
    possible = {pair for task in tasks for pair in pairs_of(needed(task))}
    used: set[str] = set()
    met: set[Pair] = set()
    for events in talks:
        tools = called(events)
        used |= tools
        met |= pairs_of(tools)
    return {
        "tools": len(used & every),
        "tools_of": len(every),
        "tools_missing": sorted(every - used),
        "pairs": len(met & possible),
        "pairs_of": len(possible),
    }
