"""The two floors under every score: an agent that does nothing, and one that hands everyone over.

A benchmark in which refusals are common rewards both; a score means something only above them. Neither looks at the
task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall

GOODBYE = "I am sorry, I cannot help you with that. Goodbye!"
TRANSFERRED = "You are being transferred to a human agent. Please hold on. Goodbye!"


class _Repeating:
    """Does the same thing every turn."""

    def __init__(self, turn: AgentTurn) -> None:
        self._turn = turn

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        return self._turn

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        return None


class DoNothing:
    """Says goodbye at once and never touches a tool."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "model": "do-nothing", "revision": "", "weight_version": 0}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        return _Repeating(AgentTurn(text=GOODBYE))


class TransferOnly:
    """Calls the scenario's terminal tool at once, or announces a hand-over where there is no such tool."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "model": "transfer-only", "revision": "", "weight_version": 0}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        tool = next((tool for tool in stage.tools if tool.klass is ToolClass.TERMINAL), None)
        if tool is None:
            return _Repeating(AgentTurn(text=TRANSFERRED))
        arguments = plausible(tool.parameters)
        return _Repeating(AgentTurn(calls=(ToolCall("call00001", tool.name, arguments),)))


def plausible(schema: Mapping[str, Any]) -> Any:
    """The smallest value that a JSON Schema of the usual kinds accepts, with readable text."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            return plausible(schema[choice][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        required = schema.get("required", ())
        return {name: plausible(schema.get("properties", {}).get(name, {})) for name in required}
    if kind == "array":
        return [plausible(schema.get("items", {})) for _ in range(schema.get("minItems", 0))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    text = "the user asked for a human agent"
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", len(text) + 10_000)]
