"""Chat completions: the body of a request, and a reply as typed data.

A request is built from plain message objects and sampling settings, exactly as the `openai` SDK would send it; a
reply, whatever its shape, becomes a `Reply` whose `finish` says what kind it is. Invariant: no reply of a server that
answered at all raises; emptiness, filtering and truncation are values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Usage
from muarl_cli.conversation.tools import ToolCall, ToolSpec, parse_arguments
from muarl_cli.engines.address import Address
from muarl_cli.engines.refusals import Filtered
from muarl_cli.engines.wire import Wire, usage_of
from muarl_cli.written import Written

Message = Mapping[str, Any]
_ILLEGAL_NAME = re.compile(r"[^a-zA-Z0-9_-]")


class Finish(StrEnum):
    """What kind of reply it is."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    """cut at the token limit"""
    FILTERED = "content_filter"
    EMPTY = "empty"
    """no words and no calls"""


@dataclass(frozen=True)
class ChatSampling:
    """How to sample one turn."""

    temperature: float
    max_tokens: int
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class RawCall:
    """A tool call as the server gave it; `arguments` is text that may be no JSON at all."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One answer of the model."""

    text: str
    finish: Finish
    calls: tuple[RawCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    """the name the server says it used: a pinned snapshot shows here"""


def request_body(
    address: Address, model: str, messages: Sequence[Message], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()
) -> dict[str, Any]:
    """The JSON body of one request."""
    # the vendor's newer models refuse `max_tokens`; many servers only know that one
    limit = "max_completion_tokens" if address.vendor else "max_tokens"
    body: dict[str, Any] = {"model": model, "messages": list(messages), limit: sampling.max_tokens}
    body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        body["seed"] = sampling.seed % (1 << 31)
    if tools:
        body["tools"] = [tool.offer for tool in tools]
    return body


class ChatModel:
    """One model behind one wire."""

    def __init__(self, wire: Wire, model: str) -> None:
        self.wire, self.model = wire, model

    async def reply(self, messages: Sequence[Message], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()) -> Reply:
        """The model's answer. Raises `InfraFault` where the wire gave up, `ContextOverflow` where the messages no
        longer fit, `MuarlError` where trying again is no use."""
        body = request_body(self.wire.address, self.model, messages, sampling, tools)
        try:
            return parse_reply(await self.wire.chat(body))
        except Filtered:
            return Reply("", Finish.FILTERED)


def parse_reply(reply: Mapping[str, Any]) -> Reply:
    """A chat completion as a `Reply`; missing or odd parts count as absent."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    text = _text(message.get("content"))
    calls = tuple(_calls(message.get("tool_calls")))
    tokens = usage_of(reply) or (0, 0)
    usage = Usage(tokens[0], tokens[1], float(reply.get("cost_usd") or 0.0))
    refused = bool(message.get("refusal")) and not text
    finish = _finish(str(choice.get("finish_reason") or ""), text, bool(calls), refused)
    return Reply(text, finish, calls, usage, str(reply.get("model") or ""))


def _finish(said: str, text: str, called: bool, refused: bool) -> Finish:
    if said == "content_filter" or refused:
        return Finish.FILTERED
    if said == "length":
        return Finish.LENGTH
    if called:
        return Finish.TOOL_CALLS
    return Finish.STOP if text.strip() else Finish.EMPTY


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # some servers answer in parts
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def _calls(calls: Any) -> list[RawCall]:
    found = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            found.append(RawCall("", "", json.dumps(call, default=str)[:2000]))
            continue
        arguments = function.get("arguments")
        if not isinstance(arguments, str):  # a few servers send the object itself
            arguments = json.dumps(arguments if arguments is not None else {})
        found.append(RawCall(str(call.get("id") or ""), str(function.get("name") or ""), arguments))
    return found


def numbered(raw: RawCall, call_id: str) -> ToolCall:
    """A server's call as ours, under an id of ours; what is malformed carries its problem along."""
    if not raw.name:
        return ToolCall(call_id, "", {}, "the call names no tool", raw.arguments)
    arguments, problem = parse_arguments(raw.arguments)
    return ToolCall(call_id, raw.name, arguments, problem, raw.arguments if problem else "")


def message(role: str, text: str) -> Written:
    """Words of one party, as they stand in a request."""
    return Written(role=role, content=text)


def tool_message(event: Event) -> Written:
    """The answer to a call, as the message it goes back as."""
    assert event.call is not None
    return Written(role="tool", tool_call_id=event.call.id, content=event.text)


def assistant_message(text: str, calls: Sequence[ToolCall]) -> Written:
    """A model's own turn as it goes back to the server: always well-formed, or the server would refuse the history."""
    turn = message("assistant", text)
    if calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": _ILLEGAL_NAME.sub("_", call.name)[:64] or "unknown",
                    "arguments": json.dumps({"malformed": call.raw[:2000]} if call.problem else dict(call.arguments)),
                },
            }
            for call in calls
        ]
    return turn
