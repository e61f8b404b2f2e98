"""Small brains for the fake OpenAI server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Says:
    """Answers every request with the next of the given messages, the last one for ever. A string is content."""

    models = ("m",)

    def __init__(self, *messages: str | dict[str, Any]) -> None:
        self._messages = [m if isinstance(m, dict) else {"content": m} for m in messages]

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._messages.pop(0) if len(self._messages) > 1 else self._messages[0]


def call(name: str, arguments: str, call_id: str = "x") -> dict[str, Any]:
    """A tool call as servers send it; `arguments` is raw text."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
