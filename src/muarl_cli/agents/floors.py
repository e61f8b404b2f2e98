"""The two floors under every score: an agent that does nothing, and one that hands everyone over.

A benchmark in which refusals are common rewards both; a score means something only above them. Neither looks at the
task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.protocols import AgentSession, AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall, ToolSpec

GOODBYE = "I am sorry, I cannot help you with that. Goodbye!"
TRANSFERRED = "You are being transferred to a human agent. Please hold on. Goodbye!"


HANDOVER_TOOL = "transfer_to_human_agents"
"""how the benchmarks call it; where it does not end the episode by itself, the user's token does (TAU2)"""


def handover(tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool that hands the user over to a human: the terminal one, or the one of the benchmarks' name."""
    terminal = next((tool for tool in tools if tool.klass is ToolClass.TERMINAL), None)
    return terminal or next((tool for tool in tools if tool.name == HANDOVER_TOOL), None)


class _Playing:
    """Takes the given turns one after the other, then the last one for ever."""

    def __init__(self, *turns: AgentTurn) -> None:
        self._turns = list(turns)

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        return self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]

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
        return _Playing(AgentTurn(text=GOODBYE))


class TransferOnly:
    """Hands the user over at once: calls the tool for it, where there is one, and announces it."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "model": "transfer-only", "revision": "", "weight_version": 0}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        tool = handover(stage.tools)
        words = AgentTurn(text=TRANSFERRED)
        if tool is None:
            return _Playing(words)
        return _Playing(AgentTurn(calls=(ToolCall("call00001", tool.name, plausible(tool.parameters)),)), words)


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
