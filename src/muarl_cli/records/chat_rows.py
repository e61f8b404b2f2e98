"""Conversations in other people's row formats, read into one form and written from it.

Read: rows of the released MUA-RL dataset (`id`, `source`, `messages` and `tools` as JSON text, the tools inside one odd
`function` wrapper), rows with `messages` and `tools` as objects, and APIGen-MT rows (`conversations` of `from` and
`value`, `system`, `tools`). Written: messages and tools (TRL, LLaMA-Factory's openai style), and conversations (its
sharegpt style). Invariant: a row that cannot be read raises ValueError with one sentence; nothing in it is guessed but
the classes of tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STOP = "###STOP###"
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
    "system": "system",
}


@dataclass(frozen=True)
class ChatRow:
    """One conversation in OpenAI's form: `messages` without the system one, `tools` as function definitions (name,
    description, parameters)."""

    id: str
    source: str
    system: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]


def read_row(row: Any, number: int) -> ChatRow:
    """A row of any known format; raises ValueError."""
    if not isinstance(row, Mapping):
        raise ValueError("the row is no object")
    if "conversations" in row:
        messages = [_turn(item) for item in _list(row["conversations"], "conversations")]
    elif "messages" in row:
        messages = [_message(item) for item in _list(row["messages"], "messages")]
    else:
        raise ValueError('neither "messages" nor "conversations"')
    system = str(row.get("system") or "")
    if messages and messages[0]["role"] == "system":
        system = str(messages[0]["content"]) or system
        messages = messages[1:]
    if not any(message["role"] == "user" for message in messages):
        raise ValueError("nobody plays the user in it")
    tools = tuple(functions(_json(row.get("tools") or [], "tools")))
    return ChatRow(
        str(row.get("id") or f"row-{number}"),
        str(row.get("source") or row.get("domain") or ""),
        system,
        tuple(_with_ids(messages)),
        tools,
    )


def functions(tools: Any) -> list[Mapping[str, Any]]:
    """The function definitions inside whatever wraps them: lists, `{"type": "function", "function": ...}` around one
    definition or around a list of them. Raises ValueError."""
    if isinstance(tools, list):
        return [found for item in tools for found in functions(item)]
    if isinstance(tools, Mapping) and "function" in tools:
        return functions(tools["function"])
    if isinstance(tools, Mapping) and isinstance(tools.get("name"), str):
        parameters = tools.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping):
            raise ValueError(f"the parameters of tool {tools['name']} are no schema")
        return [{"name": tools["name"], "description": str(tools.get("description") or ""), "parameters": parameters}]
    if isinstance(tools, Mapping) and not tools:
        return []
    raise ValueError("its tools are no function definitions")


def _list(value: Any, name: str) -> list[Any]:
    found = _json(value, name)
    if not isinstance(found, list) or not found:
        raise ValueError(f'"{name}" is no list of messages')
    return found


def _json(value: Any, name: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f'"{name}" is no JSON: {str(error)[:80]}') from None


def _turn(item: Any) -> dict[str, Any]:
    """One turn of a `from`, `value` conversation."""
    if not isinstance(item, Mapping) or item.get("from") not in _ROLES:
        raise ValueError(f"unknown speaker {str(item)[:60]!r}")
    role, value = _ROLES[item["from"]], item.get("value")
    if role != "call":
        return {"role": role, "content": "" if value is None else str(value)}
    calls = _json(value, "function_call")
    rows = calls if isinstance(calls, list) else [calls]
    return {"role": "assistant", "content": "", "tool_calls": [_call(call) for call in rows]}


def _message(item: Any) -> dict[str, Any]:
    """One message of OpenAI's form."""
    if not isinstance(item, Mapping) or item.get("role") not in _ROLES:
        raise ValueError(f"unknown role {str(item)[:60]!r}")
    role = _ROLES[item["role"]]
    if role == "call":
        return _turn({"from": "function_call", "value": item.get("content")})
    message: dict[str, Any] = {"role": role, "content": _words(item.get("content"))}
    if role == "assistant" and item.get("tool_calls"):
        message["tool_calls"] = [_call(call) for call in _json(item["tool_calls"], "tool_calls")]
    if role == "tool" and item.get("tool_call_id"):
        message["tool_call_id"] = str(item["tool_call_id"])
    return message


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


def _call(call: Any) -> dict[str, Any]:
    """A call as OpenAI writes it, its arguments as text."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a call names no tool: {str(call)[:60]!r}")
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    own = {"id": str(call["id"])} if call.get("id") else {}
    return {**own, "type": "function", "function": {"name": function["name"], "arguments": text}}


def _with_ids(messages: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The messages with an id on each call, and each answer with that of its call (in order, where it has none)."""
    waiting: list[str] = []
    number = 0
    for message in messages:
        for call in message.get("tool_calls", ()):
            call.setdefault("id", f"call{number:05d}")
            number += 1
            waiting.append(call["id"])
        if message["role"] == "tool":
            known = message.get("tool_call_id")
            if known is None or known not in waiting:
                message["tool_call_id"] = known = waiting[0] if waiting else f"unasked{number}"
            if known in waiting:
                waiting.remove(known)
        yield message


def openai_row(row: ChatRow) -> dict[str, Any]:
    """`messages` and `tools` (as JSON text, which every loader takes, whatever the tools look like)."""
    tools = [{"type": "function", "function": dict(tool)} for tool in row.tools]
    messages = [{"role": "system", "content": row.system}, *map(dict, row.messages)]
    return {"id": row.id, "source": row.source, "messages": messages, "tools": json.dumps(tools)}


def sharegpt_row(row: ChatRow) -> dict[str, Any]:
    """`conversations` in which the user's side and the agent's take turns; words before the first user message are told
    in the system prompt, words beside calls and what follows the agent's last turn are left out."""
    system, messages = row.system, list(row.messages)
    while messages and messages[0]["role"] == "assistant":
        system = f"{system}\n\nYou opened the conversation with: {messages.pop(0)['content']}"
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [_plain_call(call) for call in message["tool_calls"]]
            turns.append({"from": "function_call", "value": json.dumps(calls if len(calls) > 1 else calls[0])})
        elif message["role"] == "tool" and turns and turns[-1]["from"] == "observation":
            turns[-1]["many"] = [*turns[-1]["many"], message["content"]]
        elif message["role"] == "tool":
            turns.append({"from": "observation", "many": [message["content"]]})
        else:
            turns.append({"from": "human" if message["role"] == "user" else "gpt", "value": message["content"]})
    while turns and turns[-1]["from"] in ("human", "observation"):
        turns.pop()
    for turn in turns:
        if (many := turn.pop("many", None)) is not None:
            turn["value"] = many[0] if len(many) == 1 else json.dumps(many)
    return {
        "id": row.id,
        "source": row.source,
        "conversations": turns,
        "system": system,
        "tools": json.dumps([dict(tool) for tool in row.tools]),
    }


def _plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        arguments = function["arguments"]
    return {"name": function["name"], "arguments": arguments}
