"""Scenarios over MCP servers: those that ship with the package, and those of a server file.

A server file holds the server; its `scenario` section the policy and either tasks in words with their gold calls, or
the language of a domain (as a built-in one) with the values its tasks are drawn from. Invariant: tools and schemas come
from the server and from nowhere else; the end state that counts is found by playing the gold calls on it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.domain import Domain, gold_fails
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.definition import Server, read_server
from muarl_cli.worlds.mcp.pool import Pool
from muarl_cli.worlds.mcp.values import ListedValues
from muarl_cli.worlds.mcp.world import OWN_TOOLS, McpWorld
from muarl_cli.worlds.scenario import GoldCall, Task

SHIPPED = ("shop_database", "code_repository", "spreadsheet", "project_tasks")
"""the order in which `--scenarios N` takes them"""
SIZES: Mapping[str, int] = {"test": 120, "dev": 60, "train": 600}
SHAPES: Mapping[tuple[str, ...], int] = {
    ("write",): 30,
    ("write", "write"): 50,
    ("refused", "write"): 14,
    ("refused",): 2,
}
"""fewer tasks that doing nothing solves: the splits are small, and tasks with writes are the ones that may coincide"""
_REGISTERED: dict[str, Path] = {}


class McpScenario(Domain):
    """A scenario whose tools are a server's; see `Scenario` for the members' meaning."""

    source = "mcp"
    shapes = SHAPES

    def __init__(self, server: Server, data: Mapping[str, Any], policy: str, goals: ModuleType | ListedValues) -> None:
        super().__init__(server.name, data, policy, goals)  # type: ignore[arg-type]
        self.server = server
        self.sizes = data.get("sizes", SIZES)
        self._coming: dict[str, Future[tuple[str, str]]] = {}

    @cached_property
    def pool(self) -> Pool:
        """Its processes; none is started before a tool list or a call is asked for."""
        write = getattr(self._module, "write", None)
        return Pool(self.server, (lambda place: write(self._tables, place)) if write else None)

    @cached_property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The allowed tools of the server, and the three that every scenario has."""
        offered = background().submit(self.pool.tools()).result()
        return (*offered, *(tool.spec for tool in OWN_TOOLS.values()))

    def world(self, task: Task) -> McpWorld:
        return McpWorld(self.pool, lambda: self.tools, lambda: self._foresee(task))

    def _foresee(self, task: Task) -> None:
        """Start to find the gold state while the episode is played."""
        if task.task_hash not in self._gold:
            self._submit(self.gold_calls(task, False))

    def _submit(self, calls: Sequence[tuple[GoldCall, bool]]) -> Future[tuple[str, str]]:
        writes = [(c, may) for c, may in calls if self.server.tools.get(c.name) is ToolClass.WRITE]
        key = digest([[c.name, dict(c.arguments), may] for c, may in writes])
        if key not in self._coming:
            self._coming[key] = background().submit(self.pool.replay(writes))
        return self._coming[key]

    def _replay(self, task: Task, calls: Sequence[tuple[GoldCall, bool]]) -> str:
        if not task.gold_writes:
            return self.pool.seed.fingerprint
        coming = self._submit(calls)
        try:
            found, problem = coming.result()
        finally:
            self._coming = {key: other for key, other in self._coming.items() if other is not coming}
        if problem:
            raise gold_fails(task, task.gold_writes[-1], problem)
        return found

    @cached_property
    def policy_hash(self) -> str:
        """Changes when what the agent is told, the server's tools, or the rules change."""
        return digest([self.policy, [tool.openai() for tool in self.tools], list(map(dict, self.rules))])


class McpTasks(McpScenario):
    """A server file with tasks in words: no language, so models, people and gold replay play it."""

    def __init__(self, server: Server) -> None:
        own = server.scenario
        self.name, self.server = server.name, server
        self.policy, self.greeting = str(own.get("policy", "")), str(own.get("greeting", ""))
        self.compact = str(own.get("compact", server.name))
        self.rules = tuple(own.get("rules", ()))
        self.language = None  # type: ignore[assignment]
        self._module = None  # type: ignore[assignment]
        self._gold, self._coming = {}, {}
        self._tasks = _listed(server)

    def splits(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._tasks:
            known = ", ".join(self._tasks) or "there are none: the file lists no tasks"
            raise MuarlError(f"unknown split {split!r} of mcp:{self.name}", next_step=f"splits: {known}")
        return self._tasks[split]

    def user_prompt(self, task: Task) -> str:
        return str(task.brief["instruction"])

    def _agreed_writes(self, task: Task) -> dict[str, list[GoldCall]]:
        return {}

    def texts(self) -> list[str]:
        return [self.policy, self.compact, self.greeting, json.dumps([tool.openai() for tool in self.tools])]


def _listed(server: Server) -> dict[str, tuple[Task, ...]]:
    """The tasks of a server file by split: `{id, split, instruction, gold: [{tool: arguments}], say: [text]}`."""
    found: dict[str, list[Task]] = {}
    for number, row in enumerate(server.scenario.get("tasks", ())):
        try:
            gold = tuple(GoldCall(*next(iter(call.items()))) for call in row.get("gold", ()))
            writes = tuple(call for call in gold if server.tools.get(call.name) is ToolClass.WRITE)
            task = Task(
                id=str(row.get("id", f"{server.name}-{number:04d}")),
                source="mcp",
                scenario=server.name,
                split=str(row.get("split", "test")),
                family=str(row.get("family", "+".join(sorted({call.name for call in writes})) or "no_write")),
                brief={"instruction": row["instruction"]},
                initial={"base": server.name},
                gold=gold,
                gold_writes=writes,
                communicate=tuple(str(text) for text in row.get("say", ())),
            )
        except (AttributeError, KeyError, StopIteration, TypeError) as error:
            raise MuarlError(
                f"task {number} of mcp:{server.name} cannot be read",
                where=str(server.folder),
                why=f"{type(error).__name__}: {error}",
                next_step="{instruction: TEXT, gold: [{TOOL: {ARGUMENT: VALUE}}], say: [TEXT], split: test}",
                code=ExitCode.CONFIG,
            ) from None
        found.setdefault(task.split, []).append(task)
    return {split: tuple(tasks) for split, tasks in found.items()}


def register(path: Path) -> str:
    """Make the server of a file known as `mcp:NAME`; returns the name. Raises `MuarlError` for a bad file, or a name
    that another file has."""
    server = read_server(path)
    known = _REGISTERED.get(server.name)
    if server.name in SHIPPED or (known is not None and known != path.resolve()):
        raise MuarlError(
            f"the name mcp:{server.name} is taken",
            where=str(path),
            why=f"by {known}" if known else "by a scenario of the package",
            next_step="give the server another name",
        )
    _REGISTERED[server.name] = path.resolve()
    return server.name


def shipped_file(name: str) -> Path:
    """The server file of a scenario of the package."""
    return Path(str(resources.files("muarl_cli.worlds.mcp.servers") / name / "server.yaml"))


def known_names() -> tuple[str, ...]:
    return (*SHIPPED, *_REGISTERED)


def server_of(name: str) -> Server:
    """The server of `mcp:NAME`, or of a server file's path. Raises `MuarlError` where there is none."""
    if name in SHIPPED:
        return read_server(shipped_file(name))
    path = _REGISTERED.get(name) or Path(name)
    if name not in _REGISTERED and not path.is_file():
        raise MuarlError(
            f"unknown MCP server {name!r}",
            next_step=f"one of {', '.join(known_names())}, or a file with --mcp-server FILE",
            code=ExitCode.USAGE,
        )
    return read_server(path)


@cache
def mcp_scenario(name: str) -> McpScenario:
    """The scenario `mcp:NAME`, made once. Raises `MuarlError` where there is none, or its file is wrong."""
    server = server_of(name)
    own = server.scenario
    if "domain" in own:
        data = yaml.safe_load((server.folder / own["domain"]).read_text(encoding="utf-8"))
        policy = (server.folder / own["policy"]).read_text(encoding="utf-8")
        goals = importlib.import_module(f"muarl_cli.worlds.mcp.servers.{name}.goals")
        return McpScenario(server, {**_common(), **data}, policy, goals)
    if "intents" not in own:
        return McpTasks(server)
    try:
        return McpScenario(server, {**_common(), **own}, str(own["policy"]), ListedValues(own))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MuarlError(
            f"the scenario of mcp:{name} cannot be read",
            where=str(server.folder),
            why=f"{type(error).__name__}: {error}",
            next_step="docs/mcp_servers.md shows one",
            code=ExitCode.CONFIG,
        ) from None


@cache
def _common() -> Mapping[str, Any]:
    """Phrases, injections and rules that a scenario has where it says nothing else."""
    file = resources.files("muarl_cli.worlds.mcp.servers") / "common.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
