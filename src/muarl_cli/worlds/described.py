"""A scenario that is only described: policy, tools and tasks in one file, and nothing that executes the tools.

The file is YAML or JSON. Such a scenario can be trained on (imported conversations), and its tools can be played by a
model (`tools=simulated`). Its end state is the list of writes that went through, so a task may name its gold writes;
one that names none cannot be verified by code and needs judges. Invariant: without a tool model, a call is a fault of
the tools, never an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.protocols import ToolFault, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical_json, digest
from muarl_cli.worlds.memory import Tables, problem
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task

_READS = frozenset(
    "get list find search check look lookup query show view read fetch retrieve is has".split()  # noqa: SIM905
)
_GENERIC = frozenset({"calculate", "think", "compute", "convert", "now", "today"})
_FIRST_WORD = re.compile(r"[^A-Za-z]*([A-Z]+(?![a-z])|[A-Z]?[a-z]+)")


def guessed_class(name: str) -> ToolClass:
    """What a tool may do, by its name, where nobody said it: a verb of looking reads, everything unknown writes."""
    found = _FIRST_WORD.match(name)
    first = found.group(1).lower() if found else ""
    if "transfer" in name.lower() and "human" in name.lower():
        return ToolClass.TERMINAL
    if first in _GENERIC:
        return ToolClass.GENERIC
    return ToolClass.READ if first in _READS else ToolClass.WRITE


class DescribedWorld:
    """The tools of a described scenario, which nobody executes."""

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(self, tools: tuple[ToolSpec, ...]) -> None:
        self.tools = tools

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        klass = next(tool.klass for tool in self.tools if tool.name == call.name)
        if klass in (ToolClass.TERMINAL, ToolClass.GENERIC):
            return ToolResult("ok")
        raise ToolFault(f"{call.name} cannot be executed: the scenario is only described (tools=simulated plays it)")

    def fingerprint(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


class Described:
    """A scenario from a file; see `Scenario` for the members' meaning."""

    agent_may_stop = False
    executable = False

    def __init__(self, source: str, data: Mapping[str, Any]) -> None:
        self.source, self.name = source, str(data["name"])
        self.policy, self.greeting = str(data["policy"]), str(data.get("greeting", ""))
        self.compact = str(data.get("compact", self.name))
        self.rules: Sequence[Mapping[str, Any]] = data.get("rules", ())
        self.tools = tuple(_tool(row) for row in data["tools"])
        self.schema: Mapping[str, Any] = data.get("schema", {"type": "object"})
        self._database: Mapping[str, Any] = data.get("database", {})
        self._tasks = tuple(self._task(row) for row in data.get("tasks", ()))
        if why := problem(self._database, self.schema):
            raise ValueError(f"the database does not conform to the schema: {why}")

    def _task(self, row: Mapping[str, Any]) -> Task:
        classes = {tool.name: tool.klass for tool in self.tools}
        gold = tuple(GoldCall(call["name"], dict(call.get("arguments", {}))) for call in row.get("gold") or ())
        if unknown := [call.name for call in gold if call.name not in classes]:
            raise ValueError(f"task {row.get('id')}: gold calls the unknown tool {unknown[0]}")
        return Task(
            id=str(row["id"]),
            source=self.source,
            scenario=self.name,
            split=str(row.get("split", "train")),
            family=str(row.get("family", "")),
            brief={"instruction": str(row["instruction"])},
            initial={"database": digest(row.get("database", self._database))},
            gold=gold,
            gold_writes=tuple(call for call in gold if classes[call.name] is ToolClass.WRITE),
            extra={"unchecked": "gold" not in row, "database": row.get("database")},
        )

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task.split for task in self._tasks))

    def tasks(self, split: str) -> Sequence[Task]:
        return [task for task in self._tasks if task.split == split]

    def world(self, task: Task) -> DescribedWorld:
        return DescribedWorld(self.tools)

    def memory(self, task: Task, seed: int) -> Tables:
        """The task's own small database, else the scenario's; a copy."""
        copied: Tables = json.loads(json.dumps(task.extra.get("database") or self._database))
        return copied

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        made = _writes(events)
        wanted = sorted(canonical_json([call.name, dict(call.arguments)]) for call in task.gold_writes)
        final, gold = digest(sorted(made), 64), digest(wanted, 64)
        if task.extra.get("unchecked"):
            return Outcome(1.0, StateHashes(digest([], 64), final, final), {"checked": False})
        return Outcome(float(final == gold), StateHashes(digest([], 64), final, gold), {"state": final == gold})

    def user_prompt(self, task: Task) -> str:
        return str(task.brief["instruction"])

    @cached_property
    def policy_hash(self) -> str:
        return digest([self.policy, [tool.openai() for tool in self.tools], list(map(dict, self.rules))])


def _tool(row: Mapping[str, Any]) -> ToolSpec:
    name = str(row["name"])
    klass = ToolClass(row["class"]) if "class" in row else guessed_class(name)
    parameters = dict(row.get("parameters") or {"type": "object", "properties": {}})
    return ToolSpec(name, str(row.get("description", "")), parameters, klass)


def _writes(events: Sequence[Event]) -> list[str]:
    """The writes of the agent that went through, as text."""
    asked: dict[str, Event] = {}
    made = []
    for event in events:
        if event.kind is Kind.CALL and event.actor is Actor.AGENT and event.call:
            asked[event.call.id] = event
        elif event.kind is Kind.RESULT and event.call and event.call.id in asked:
            call = asked.pop(event.call.id).call
            if call is not None and call.klass is ToolClass.WRITE:
                made.append(canonical_json([call.name, dict(call.arguments or {})]))
    return made


@lru_cache(maxsize=256)
def described(path: str) -> Described:
    """The scenario in a file. Raises `MuarlError` where it is missing or wrong, naming what."""
    import yaml

    file = Path(path)
    try:
        text = file.read_text("utf-8")
        data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        return Described(path, data)
    except FileNotFoundError as error:
        raise MuarlError(
            "there is no such scenario file",
            where=path,
            next_step="give its path as it is from here",
            code=ExitCode.MISSING_INPUT,
        ) from error
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:300]
        raise MuarlError(
            "a described scenario cannot be read",
            where=path,
            why=missing,
            next_step="it needs name, policy, tools (name, description, parameters) and tasks (id, instruction)",
            code=ExitCode.BAD_DATA,
        ) from error
