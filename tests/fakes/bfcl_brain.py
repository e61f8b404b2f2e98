"""A served model that answers BFCL entries with their gold, and errs in about a tenth of the turns, always in the same
ones and in several ways. It keeps no state: a reply depends on the request alone, so two runners meet the same model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fakes.openai_server import Body

ERRORS = ("drop", "value", "unknown", "argument", "unread", "endless", "words")
ONE_IN = 10
MODEL = "muarl-test-FC"


class BfclBrain:
    """Knows entries as the package's worker loads them (`turns`, `gold`), found again by their questions."""

    models = (MODEL, MODEL.removesuffix("-FC"))  # the V3 handler takes the suffix off

    def __init__(self, entries: Sequence[Mapping[str, Any]], together: bool = False) -> None:
        self._together = together
        self._by_questions: dict[str, Mapping[str, Any]] = {}
        for entry in entries:
            words = [m["content"] for messages in entry["turns"] for m in messages]
            for count in range(1, len(words) + 1):
                tools = sorted(tool["function"]["name"] for tool in entry["tools"])
                self._by_questions.setdefault(_key(words[:count], tools), entry)
                self._by_questions.setdefault(_key(words[:count], ()), entry)

    def message(self, body: Body) -> dict[str, Any]:
        messages = body["messages"]
        said = [i for i, m in enumerate(messages) if m["role"] == "user"]
        words = [messages[i]["content"] for i in said]
        tools = sorted(tool["function"]["name"] for tool in body.get("tools", ()))
        entry = self._by_questions.get(_key(words, tools)) or self._by_questions[_key(words, ())]
        step = sum(m["role"] == "assistant" for m in messages[said[-1] :])
        return self._step(entry, len(words) - 1, step)

    def _step(self, entry: Mapping[str, Any], turn: int, step: int) -> dict[str, Any]:
        calls = entry["gold"][turn] if turn < len(entry["gold"]) else []
        error = _error(words=[m["content"] for messages in entry["turns"][: turn + 1] for m in messages])
        steps: list[list[tuple[str, str]]] = [[(c["name"], json.dumps(c["arguments"]))] for c in calls]
        if self._together or len(steps) > 20:
            steps = [[call for one in steps for call in one]] if steps else []
        if error == "words" or not steps:
            return {"content": "I cannot do that."}
        name, arguments = steps[-1][-1]
        match error:
            case "drop":
                steps[-1].pop()
            case "value":
                steps[-1][-1] = (name, _other_values(arguments))
            case "unknown":
                steps[-1][-1] = ("no_such_tool", arguments)
            case "argument":
                steps[-1][-1] = (name, json.dumps({**json.loads(arguments), "no_such_argument": 1}))
            case "unread":
                steps[-1][-1] = (name, arguments[:-1])
            case "endless":
                return _calls(steps[0], step)
        steps = [one for one in steps if one]
        return _calls(steps[step], step) if step < len(steps) else {"content": "That is done."}


def _error(words: Sequence[str]) -> str:
    """Which error a turn shows, "" for none; it depends on what the user said so far."""
    number = int(hashlib.sha256("\0".join(words).encode()).hexdigest()[:12], 16)
    return ERRORS[number // ONE_IN % len(ERRORS)] if number % ONE_IN == 0 else ""


def _other_values(arguments: str) -> str:
    changed = {
        key: value + 1.5 if type(value) in (int, float) else f"{value}x" if isinstance(value, str) else value
        for key, value in json.loads(arguments).items()
    }
    return json.dumps(changed)


def _calls(step: Sequence[tuple[str, str]], number: int) -> dict[str, Any]:
    return {
        "content": None,
        "tool_calls": [
            {"id": f"fake{number}x{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(step)
        ],
    }


def _key(words: Sequence[str], tools: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([list(words), list(tools)]).encode()).hexdigest()
