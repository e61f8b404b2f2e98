"""Scenarios and tasks: a domain as data, and one user goal in it.

A task names its initial state, what its user wants (the brief), and the gold calls whose replay gives the end state
that counts. Invariant: `task_hash` depends on what defines the task and on nothing else; `gold_write_hash` on the gold
writes alone, and an empty one never matches anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, cast

from muarl_cli.conversation.episode import StateHashes
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, World
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.hashing import digest

_OUTPUTS = "outputs_count"
USER_TOOLS = "user_tools"
"""in a task's `extra`: the names of the tools that its user has, where that is not all of the scenario's"""


@dataclass(frozen=True)
class GoldCall:
    """One call of the reference path. Any path to the same end state passes."""

    name: str
    arguments: Mapping[str, Any]
    requestor: str = "agent"


@dataclass(frozen=True)
class Task:
    """One user goal."""

    id: str
    source: str
    scenario: str
    split: str
    family: str
    """the intent family"""
    brief: Mapping[str, Any]
    """what the user knows and wants; its form belongs to the scenario (an agenda, or an instruction text)"""
    initial: Mapping[str, Any]
    """which initial state: a seed, or changes to a shared base"""
    gold: tuple[GoldCall, ...]
    gold_writes: tuple[GoldCall, ...]
    """those of `gold` that change the state"""
    communicate: tuple[str, ...] = ()
    """what must be said to the user"""
    bases: tuple[str, ...] = ("db",)
    """what the reward is a product of"""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def task_hash(self) -> str:
        gold = [[c.name, dict(c.arguments), c.requestor] for c in self.gold]
        return digest([self.source, self.scenario, dict(self.brief), dict(self.initial), gold, list(self.communicate)])

    @cached_property
    def gold_write_hash(self) -> str:
        """Hash of the gold writes with their arguments; "" where there are none, which matches nothing."""
        if not self.gold_writes:
            return ""
        return digest(sorted(digest([c.name, dict(c.arguments), c.requestor], 64) for c in self.gold_writes))

    @property
    def writes(self) -> bool:
        """Whether solving it takes a write."""
        return bool(self.gold_writes)


def without_outputs(task: Task) -> Task:
    """The task with what must be said left out of its reward, as the paper trains. It stays the same task: its hashes
    do not change."""
    return replace(task, extra={**task.extra, _OUTPUTS: False})


def outputs_count(task: Task) -> bool:
    """Whether what must be said is part of the task's reward."""
    return bool(task.extra.get(_OUTPUTS, True))


@dataclass(frozen=True)
class Outcome:
    """What the scorer says of a conversation that ended in a graded way."""

    reward: float
    state: StateHashes
    detail: Mapping[str, Any] = field(default_factory=dict)


class Scenario(Protocol):
    """A domain."""

    name: str
    source: str
    policy: str
    compact: str
    greeting: str
    agent_may_stop: bool

    @property
    def tools(self) -> tuple[ToolSpec, ...]: ...

    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split, in a fixed order; raises `MuarlError` for an unknown split."""
        ...

    def splits(self) -> tuple[str, ...]: ...

    def world(self, task: Task) -> World:
        """A fresh world for one episode; costs what the episode changes."""
        ...

    def outcome(self, task: Task, world: World, events: Sequence[Event]) -> Outcome:
        """Grade the end of a conversation."""
        ...

    def user_prompt(self, task: Task) -> str:
        """The brief in words, for users that are worded by a language model or played by a person."""
        ...

    @property
    def policy_hash(self) -> str: ...


def user_tools_of(scenario: Any, task: Task | None = None) -> tuple[ToolSpec, ...]:
    """The tools that users have themselves (dual control), of a task's user those that it names; none in most
    scenarios."""
    tools = tuple(getattr(scenario, "user_tools", ()))
    named = task.extra.get(USER_TOOLS) if task is not None else None
    return tools if named is None else tuple(tool for tool in tools if tool.name in named)


def stage_of(scenario: Scenario, seed: int, task: Task | None = None) -> Stage:
    """What both parties are told when an episode opens. A scenario whose tasks have tools of their own says it."""
    own = getattr(scenario, "stage", None)
    if own is not None and task is not None:
        return cast(Stage, own(task, seed))
    return Stage(
        scenario.name,
        scenario.policy,
        scenario.compact,
        tuple(scenario.tools),
        scenario.greeting,
        seed,
        user_tools=user_tools_of(scenario, task),
    )
