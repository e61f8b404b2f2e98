"""A person at the terminal as the agent: speaks, and calls the scenario's tools by name.

`/call NAME key=value ...` or `/call NAME {json}` calls a tool, any other line is said to the user. Invariant: a call
goes through the same check as a model's call, so a person meets the same error observations and the log looks the same.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall, ToolSpec, parse_arguments
from muarl_cli.users.human import Terminal

HELP = "type what you say; /call NAME key=value ... calls a tool; /tools lists them; /policy shows the rules"


class HumanAgents:
    """Opens agents that are played at the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "human", "model": "", "revision": "", "weight_version": ""}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        return _HumanAgent(self._terminal, stage)


class _HumanAgent:
    def __init__(self, terminal: Terminal, stage: Stage) -> None:
        self._terminal, self._stage = terminal, stage
        self._calls = 0
        self._has_terminal = False

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        terminal = self._terminal
        if not self._has_terminal:
            await terminal.turn.acquire()
            self._has_terminal = True
            terminal.show("you are the agent", self._stage.policy)
            terminal.show("how", HELP)
        for event in news:
            if event.actor is Actor.USER and event.kind is Kind.SAY:
                terminal.show("user", event.text)
            elif event.actor is Actor.WORLD:
                terminal.show("error" if event.kind is Kind.ERROR else "result", event.text)
            elif "greeting" in event.tags:
                terminal.show("you (greeting)", event.text)
        while True:
            line = (await terminal.line("you> ")).strip()
            if line == "/tools":
                for tool in self._stage.tools:
                    terminal.show("tool", _summary(tool))
            elif line == "/policy":
                terminal.show("policy", self._stage.policy)
            elif line.startswith("/call ") and line[6:].strip():
                return AgentTurn(calls=(self._call(line[6:].strip()),))
            elif line.startswith("/"):
                terminal.show("how", HELP)
            elif line:
                return AgentTurn(line)

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        if self._has_terminal:
            self._terminal.turn.release()
            self._has_terminal = False

    def _call(self, text: str) -> ToolCall:
        name, _, rest = text.partition(" ")
        self._calls += 1
        tool = next((tool for tool in self._stage.tools if tool.name == name), None)
        arguments, problem = parse_call(rest.strip(), tool)
        return ToolCall(f"call_{self._calls}", name, arguments, problem, rest if problem else "")


def parse_call(text: str, tool: ToolSpec | None) -> tuple[dict[str, Any], str]:
    """Arguments as JSON or as `key=value` words, where dots nest; (arguments, problem). Values take the type that the
    tool's schema asks for."""
    if text.startswith("{"):
        return parse_arguments(text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        return {}, f"cannot read {text!r}: {error}"
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            return {}, f"{word!r} is not key=value"
        *outer, last = key.split(".")
        place = arguments
        schema: Any = tool.parameters if tool else {}
        for step in outer:
            place = place.setdefault(step, {})
            schema = _inner(schema, step)
            if not isinstance(place, dict):
                return {}, f"{key!r} nests into a value"
        place[last] = _typed(value, _inner(schema, last))
    return arguments, ""


def _inner(schema: Any, name: str) -> Any:
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    return properties.get(name, {})


def _typed(value: str, schema: Any) -> Any:
    """The value as the schema has it: text stays text, everything else is read as JSON where it is JSON."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _summary(tool: ToolSpec) -> str:
    names = ", ".join(tool.parameters.get("properties", {}))
    return f"{tool.name}({names}): {' '.join(tool.description.split())[:100]}"
