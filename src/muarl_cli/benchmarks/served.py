"""Scenarios whose worlds live in a world server: a benchmark's checkout under its own interpreter.

The server gives the texts, tools, tasks, and the official reward; the conversation stays here. Invariant: an episode
belongs to the process it was opened in; when that is gone, the episode ends as an infrastructure fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from muarl_cli.benchmarks.tau2_results import official_figures
from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.conversation.episode import Episode, StateHashes
from muarl_cli.conversation.events import Event, ToolClass, Write
from muarl_cli.conversation.protocols import InfraFault, ToolResult
from muarl_cli.conversation.tools import Toolbox, ToolCall, ToolSpec, typed
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.scenario import USER_TOOLS, GoldCall, Outcome, Task, outputs_count, user_tools_of
from muarl_cli.worlds.server import WorldServer

ClassOf = Callable[[Mapping[str, Any]], ToolClass]
"""the class of a tool from its description by the server"""
_EPISODES = count(1)


class ServedWorld:
    """One episode's environment in the server (see the `World` protocol)."""

    def __init__(self, scenario: ServedScenario, task: Task) -> None:
        server = scenario.server
        self._server, self.episode, self._typed = server, next(_EPISODES), scenario.typed_numbers
        self.tools, self.user_tools = scenario.tools, user_tools_of(scenario, task)
        self._sides = {"agent": Toolbox(self.tools), "user": Toolbox(self.user_tools)}
        self._broken = ""
        try:
            server.tell("open", episode=self.episode, domain=scenario.name, split=task.split, task=task.id)
        except MuarlError as error:  # it ran before: dying in the middle of a run is nobody's input
            self._broken = str(error)
        self._process = server.alive

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        self._check()
        side = self._sides["user" if requestor == "user" else "agent"]
        arguments = typed(call.arguments, side.get(call.name)) if self._typed else dict(call.arguments)
        answer = await self._server.ask_soon(
            "call", episode=self.episode, name=call.name, arguments=arguments, requestor=requestor
        )
        return ToolResult(answer["text"], answer["ok"], tuple(Write(**write) for write in answer["writes"]))

    def fingerprint(self) -> str:
        self._check()
        return str(self._server.ask("state", episode=self.episode))

    def reward(self, events: Sequence[Event], keep_outputs: bool) -> dict[str, Any]:
        """The benchmark's own judgement."""
        self._check()
        messages = messages_of(events, self.tools, self.user_tools)
        return dict(self._server.ask("reward", episode=self.episode, messages=messages, outputs=keep_outputs))

    def close(self) -> None:
        if self._process and self._server.alive == self._process:
            self._server.tell("drop", episode=self.episode)

    def _check(self) -> None:
        if self._broken or self._server.alive != self._process:
            raise InfraFault(self._broken or f"the world server {self._server.name} died in the middle of the episode")


class ServedScenario:
    """A domain of a served benchmark (see the `Scenario` protocol)."""

    agent_may_stop = False
    typed_numbers = False
    """whether whole numbers go to the benchmark as floats where a schema says "number" (see `typed`)"""

    def __init__(self, source: str, name: str, server: WorldServer, class_of: ClassOf) -> None:
        self.source, self.name, self.server = source, name, server
        self._class_of = class_of
        spec = server.load("spec", domain=name)
        self.policy, self.greeting = str(spec["policy"]), str(spec["greeting"])
        self.compact = f"{source} {name}"
        self.user_guidelines = str(spec["guidelines"])
        self.tools, self.user_tools = self._specs(spec["tools"]), self._specs(spec.get("user_tools", ()))
        self._splits = tuple(spec["splits"])
        self.retrieval = str(spec.get("retrieval", ""))
        """the official name of how the agent gets at a knowledge base; "" where there is none"""

    @cached_property
    def policy_hash(self) -> str:
        return digest([self.policy, [tool.openai() for tool in self.tools]])

    @property
    def revision(self) -> Mapping[str, str]:
        """What has to stand beside every score of this benchmark."""
        hello = self.server.hello
        found = {"package": f"checkout under Python {hello['python']}", "upstream": str(hello["revision"])}
        return found | ({"retrieval": self.retrieval} if self.retrieval else {})

    def splits(self) -> tuple[str, ...]:
        return self._splits

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._splits:
            raise MuarlError(
                f"{self.source}:{self.name} has no split {split!r}",
                next_step=f"one of: {', '.join(self._splits)}",
                code=ExitCode.USAGE,
            )
        return tuple(self._task(row, split) for row in self.server.load("tasks", domain=self.name, split=split))

    def world(self, task: Task) -> ServedWorld:
        return ServedWorld(self, task)

    def user_prompt(self, task: Task) -> str:
        """The benchmark's own prompt for a model that plays the user."""
        return str(task.extra["prompt"])

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        while not isinstance(world, ServedWorld):  # inside what a run put around it
            world = world.inner
        found = world.reward(events, outputs_count(task))
        detail = {"missing": [], "unjudged": [], "revision": dict(self.revision)} | found["detail"]
        return Outcome(float(found["reward"]), StateHashes(**found["state"]), detail)

    def official_summary(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """What the benchmark reports beside the score."""
        return official_figures(self, episodes)

    def official_files(self, episodes: Sequence[Episode], agent: str) -> dict[str, bytes]:
        """Result files that the benchmark's own commands read, by name (TAU1 cannot grade again)."""
        return {}

    def _specs(self, rows: Sequence[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
        return tuple(
            ToolSpec(
                row["name"],
                row["description"],
                row["parameters"],
                self._class_of(row),
                whole_numbers=bool(row.get("whole_numbers")),
            )
            for row in rows
        )

    def _task(self, row: Mapping[str, Any], split: str) -> Task:
        gold = tuple(GoldCall(c["name"], c["arguments"], c.get("requestor", "agent")) for c in row["gold"])
        writes = tuple(gold[place] for place in row["writes"])
        return Task(
            id=row["id"],
            source=self.source,
            scenario=self.name,
            split=split,
            family="+".join(sorted({call.name for call in writes})) or "no_write",
            brief=row["brief"],
            initial=row["initial"],
            gold=gold,
            gold_writes=writes,
            communicate=tuple(row["communicate"]),
            bases=tuple(row["bases"]),
            extra={
                "prompt": row["prompt"],
                "nl_assertions": tuple(row.get("nl_assertions", ())),
                "official_splits": tuple(row.get("official_splits", (split,))),
            }
            | ({USER_TOOLS: tuple(row[USER_TOOLS])} if row.get(USER_TOOLS) is not None else {}),
        )
