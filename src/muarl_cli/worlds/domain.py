"""A built-in scenario: a folder of data and one file of tools, made into a `Scenario`.

Invariant: everything about a domain that is not code is in its folder; this module knows no domain by name. The end
state that counts is found by replaying a task's gold calls on a fresh store, once per task.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from types import ModuleType
from typing import Any

import yaml

from muarl_cli.conversation.episode import StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import World
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.generator import SHAPES, SPLIT_SIZES, TaskGenerator
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import Language, language_from, said, value_text
from muarl_cli.worlds.memory import Tables, cut, leaves, schema_of
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task
from muarl_cli.worlds.store import Base
from muarl_cli.worlds.toolkit import StoreWorld

BUILTIN = ("job_application", "course_registration", "rental", "meeting_room", "library", "retail")
"""the order in which `--scenarios N` takes them"""
STATE_SEED = 1
AFTER_WRITE = "inject:mind_change_after_write"
"""tag of a user turn that takes back what was agreed to and done (`users.injectors`)"""


class Domain:
    """One built-in scenario; see `Scenario` for the members' meaning."""

    source = "builtin"
    sizes: Mapping[str, int] = SPLIT_SIZES
    shapes: Mapping[tuple[str, ...], int] = SHAPES
    agent_may_stop = False

    def __init__(self, name: str, data: Mapping[str, Any], policy: str, tools: ModuleType) -> None:
        self.name = name
        self.policy = policy
        self.compact: str = data["compact"]
        self.greeting: str = data["greeting"]
        self.rules: Sequence[Mapping[str, Any]] = data["rules"]
        self.language: Language = language_from(data)
        if shapes := data.get("shapes"):
            self.shapes = {tuple(words.split()): n for words, n in shapes.items()}
        self._module = tools
        self._gold: dict[str, str] = {}
        self._tasks: dict[str, tuple[Task, ...]] = {}

    @cached_property
    def tools(self) -> tuple[ToolSpec, ...]:
        return tuple(t.spec for t in self._module.TOOLS.values())

    def splits(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self.sizes:
            raise MuarlError(
                f"unknown split {split!r} of {self.source}:{self.name}",
                next_step=f"use one of {', '.join(self.sizes)}",
                code=ExitCode.USAGE,
            )
        if split not in self._tasks:
            self._tasks.update(self.generator.splits(up_to=split))
        return self._tasks[split]

    @property
    def generator(self) -> TaskGenerator:
        """A fresh generator of this domain's tasks."""
        return TaskGenerator(self.name, self.language, self._module, self._tables, self.source, self.sizes, self.shapes)

    @cached_property
    def _tables(self) -> Any:
        return self._module.state(STATE_SEED)

    @cached_property
    def _base(self) -> Base:
        return Base(self._tables)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of the database."""
        return schema_of(self._tables)

    def memory(self, task: Task, seed: int) -> Tables:
        """The part of the database that a task is about, for a model that plays the tools."""
        values = [leaf for call in task.gold for leaf in leaves(call.arguments)]
        goals = goals_of(task.brief) if "goals" in task.brief else ()
        values += [leaf for goal in goals for row in (goal.slots, goal.final) for leaf in leaves(row)]
        return cut(self._tables, self._module.OWNER, values, seed)

    def world(self, task: Task) -> Any:
        return StoreWorld(self._base, self._module.TOOLS, self._module.OWNER)

    def outcome(self, task: Task, world: World, events: Sequence[Event]) -> Outcome:
        too_late = any(AFTER_WRITE in e.tags for e in events)
        final, gold = world.fingerprint(), self.gold_fingerprint(task, too_late)
        handed_over = any(
            e.kind is Kind.RESULT and e.actor is Actor.WORLD and e.call and e.call.name == "transfer_to_human_agents"
            for e in events
        )
        wanted = any(call.name == "transfer_to_human_agents" for call in task.gold)
        detail = {"state": final == gold, "transfer": handed_over == wanted}
        if task.communicate:
            words = " ".join(e.text for e in events if e.actor is Actor.AGENT and e.heard_by_user())
            detail["told"] = all(said(text, words) for text in task.communicate)
        return Outcome(float(all(detail.values())), StateHashes(self.world(task).fingerprint(), final, gold), detail)

    def gold_fingerprint(self, task: Task, too_late: bool = False) -> str:
        """Fingerprint of the state after the gold calls; a gold call that fails is an error of the task's author.

        `too_late`: the user agreed to their first values and changed their mind after the write. What counts is then
        the agreed write, and the changed one after it where the domain allows that.
        """
        key = task.task_hash + ("/late" if too_late else "")
        if key not in self._gold:
            self._gold[key] = self._replay(task, self.gold_calls(task, too_late))
        return self._gold[key]

    def _replay(self, task: Task, calls: Sequence[tuple[GoldCall, bool]]) -> str:
        world = self.world(task)
        for call, may_fail in calls:
            result = world.run(call.name, call.arguments)
            if not (result.ok or may_fail):
                raise gold_fails(task, call, result.text)
        return world.fingerprint()

    def gold_calls(self, task: Task, too_late: bool) -> list[tuple[GoldCall, bool]]:
        """The calls whose replay gives the end state that counts, each with whether it may be refused: a changed write
        after the agreed one is where the domain does not allow it."""
        agreed = self._agreed_writes(task) if too_late else {}
        calls = []
        for call in task.gold:
            first = agreed.get(digest([call.name, dict(call.arguments)]), [])
            calls += [(earlier, True) for earlier in first]
            calls.append((call, bool(agreed)))
        return calls

    def _agreed_writes(self, task: Task) -> dict[str, list[GoldCall]]:
        """By the digest of the (first) gold write of a goal that changes: its writes before the change."""
        found = {}
        for goal in goals_of(task.brief):
            intent = self.language.intents[goal.intent]
            if goal.change:
                final = self.language.write_call(intent, goal.final)
                first = [GoldCall(*write) for write in self.language.writes(intent, goal.slots)]
                found[digest([intent.write, final])] = first
        return found

    def user_prompt(self, task: Task) -> str:
        """The brief in words."""
        lines = []
        for number, goal in enumerate(goals_of(task.brief), 1):
            intent = self.language.intents[goal.intent]
            lines.append(f"Request {number}: {intent.open[0]}")
            for name, value in goal.slots.items():
                if name not in intent.slots:
                    continue
                words = self.language.slots[name].words.removeprefix("your ")
                if name in goal.unknown:
                    lines.append(f"- You do not know {words}; you know that it is {goal.unknown[name]}.")
                else:
                    lines.append(f"- {words}: {value_text(value)}")
            if goal.change:
                words = self.language.slots[goal.change.slot].words
                lines.append(
                    f"- When the agent asks you to confirm, you change your mind: {words} shall be "
                    f"{value_text(goal.change.value)} instead. If it was already done without asking, say so then."
                )
            if self.language.rivals(intent):
                lines.append(
                    "- How this is carried out is for the agent to say: agree to it where your values are right."
                )
            if goal.refused:
                lines.append("- If the agent says that this is not possible, accept it.")
        return "\n".join(lines)

    @cached_property
    def policy_hash(self) -> str:
        return digest([self.policy, [tool.openai() for tool in self.tools], list(map(dict, self.rules))])

    def texts(self) -> list[str]:
        """All texts of the domain, for a tokenizer: policy, phrases, tool names and values that may occur."""
        lines = [self.policy, self.compact, self.greeting, json.dumps([tool.openai() for tool in self.tools])]
        for options in self.language.phrases.values():
            lines += options
        return lines


def gold_fails(task: Task, call: GoldCall, text: str) -> ValueError:
    """A gold call that is refused is a mistake of the task's author."""
    return ValueError(f"gold call {call.name} of {task.id} fails: {text}")


@cache
def builtin(name: str) -> Domain:
    """The built-in scenario of this name; raises `MuarlError` where there is none."""
    if name not in BUILTIN:
        raise MuarlError(
            f"unknown built-in scenario {name!r}", next_step=f"use one of {', '.join(BUILTIN)}", code=ExitCode.USAGE
        )
    folder = resources.files("muarl_cli.worlds.builtin") / name
    data = yaml.safe_load((folder / "domain.yaml").read_text(encoding="utf-8"))
    policy = (folder / "policy.md").read_text(encoding="utf-8")
    return Domain(name, data, policy, importlib.import_module(f"muarl_cli.worlds.builtin.{name}.tools"))
