"""Tool definitions and the check of a call against them.

Invariant: whatever a model emits, checking it never raises; the answer is either "fine" or one short error text that
names the valid options, which the agent gets as an observation. A bad call is never the end of an episode by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.written import Written

MAX_ARGUMENT_CHARS = 32_768
"""longer arguments are refused unread: no tool here needs them, and 1 MB would flood the context"""
MAX_DEPTH = 32


@dataclass(frozen=True)
class ToolSpec:
    """One tool: its name, what it does, the JSON Schema of its arguments, and what it may do to the state.

    `parameters` is a full JSON Schema object (nested objects included) and is shown to models unchanged.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    klass: ToolClass
    response: Mapping[str, Any] | None = None
    """schema of the answer, where a benchmark shows it to models"""
    whole_numbers: bool = False
    """whether its code gets a whole number as one (2, never 2.0) even where the schema says "number" (see `typed`)"""

    @cached_property
    def schema_text(self) -> str:
        """The schema of the arguments as the text by which its validator is kept."""
        return json.dumps(self.parameters, sort_keys=True)

    def openai(self) -> dict[str, Any]:
        """The tool as the `tools` entry of a chat-completions request."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        if self.response is not None:
            function["response"] = dict(self.response)
        return {"type": "function", "function": function}

    @cached_property
    def offer(self) -> Written:
        """The same, made once for all requests."""
        return Written(self.openai())

    @cached_property
    def enumerated(self) -> tuple[str, ...]:
        """Texts that the schema of the arguments enumerates, each once, in its order."""
        found: dict[str, None] = {}
        _gather(dict(self.parameters), found)
        return tuple(found)


def _gather(node: Any, found: dict[str, None]) -> None:
    if isinstance(node, dict):
        found.update(dict.fromkeys(value for value in node.get("enum", ()) if isinstance(value, str)))
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for inner in node:
            _gather(inner, found)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the agent made it. `problem` is set by the parser where the text was no well-formed call."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    problem: str = ""
    raw: str = ""
    """the text as sampled, kept where it could not be parsed"""


def parse_arguments(text: str) -> tuple[dict[str, Any], str]:
    """JSON text to (arguments, problem); never raises, whatever the size or depth of the text."""
    value, problem = parse_json(text) if text.strip() else ({}, "")
    if problem or not isinstance(value, dict):
        return {}, problem or "arguments must be a JSON object"
    return value, ""


def parse_json(text: str) -> tuple[Any, str]:
    """JSON text to (value, problem of it as arguments); never raises, whatever the size or depth of the text."""
    if len(text) > MAX_ARGUMENT_CHARS:
        return None, f"arguments have {len(text)} characters; at most {MAX_ARGUMENT_CHARS} are accepted"
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return None, f"arguments are nested deeper than {MAX_DEPTH} levels"
    try:
        return json.loads(text, parse_constant=_refuse_constant), ""
    except (ValueError, RecursionError) as error:
        return None, f"arguments are not valid JSON: {str(error)[:120]}"


def _depth(text: str) -> int:
    """An upper bound (brackets inside strings count too), which spares the parser a recursion error."""
    deepest = depth = 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        deepest = max(deepest, depth)
    return deepest


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def typed(arguments: Mapping[str, Any], tool: ToolSpec | None) -> dict[str, Any]:
    """Arguments as code in which 2 and 2.0 print differently should get them: a whole number is a float where the
    schema says "number". A log keeps one form of both; with this, what is executed can be executed again from it."""
    if tool is not None and tool.whole_numbers:
        return {
            name: int(value) if type(value) is float and value.is_integer() else value
            for name, value in arguments.items()
        }
    schemas = tool.parameters.get("properties", {}) if tool else {}
    return {
        name: float(value) if type(value) is int and schemas.get(name, {}).get("type") == "number" else value
        for name, value in arguments.items()
    }


class Toolbox:
    """The tools of one world, with the check that stands before every execution."""

    def __init__(self, tools: tuple[ToolSpec, ...]) -> None:
        self.tools = tools
        self._by_name = {tool.name: tool for tool in tools}
        if len(self._by_name) != len(tools):
            raise ValueError("two tools share a name")

    def __getitem__(self, name: str) -> ToolSpec:
        return self._by_name[name]

    def get(self, name: str) -> ToolSpec | None:
        return self._by_name.get(name)

    def problem(self, call: ToolCall) -> str:
        """Why this call cannot be executed ("" where it can), naming what would be valid."""
        if call.problem:
            return call.problem
        tool = self._by_name.get(call.name)
        if tool is None:
            near = get_close_matches(call.name[:64], self._by_name, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            return f"unknown tool {call.name[:64]!r}.{hint} Tools: {', '.join(self._by_name)}"
        try:
            return _schema_problem(tool, call.arguments)
        except RecursionError:  # an agent that parses its own arguments may hand over anything
            return f"{tool.name}: arguments are nested too deeply"


def _schema_problem(tool: ToolSpec, arguments: Mapping[str, Any]) -> str:
    validator = _validator(tool.schema_text)
    errors = sorted(validator.iter_errors(dict(arguments)), key=lambda e: [str(p) for p in e.absolute_path])
    if not errors:
        return ""
    first = errors[0]
    place = ".".join(str(p) for p in first.absolute_path) or "arguments"
    expected = ", ".join(tool.parameters.get("properties", {}))
    return f"{tool.name}: {place}: {first.message[:160]}. Arguments: {expected or 'none'}"


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator  # imported at first use: not on the way to --help

    return Draft202012Validator(json.loads(schema))
