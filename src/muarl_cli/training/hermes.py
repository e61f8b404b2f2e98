"""Hermes-style tool calls as text: parsing what a model sampled, rendering what a demonstration says.

Invariant: parsing never raises and never drops anything silently; a block that is no well-formed call becomes a
`ToolCall` with `problem` set and the sampled text in `raw`. Rendering a parsed well-formed call and parsing it again
gives the same call. Calls get the ids call_0, call_1, ... in the order of the episode.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from muarl_cli.conversation.tools import ToolCall, parse_arguments

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FORM = '{"name": TOOL, "arguments": {...}}'
_DECODER = json.JSONDecoder()


def parse_turn(text: str, first_call: int = 0) -> tuple[str, tuple[ToolCall, ...]]:
    """One assistant turn (without its end-of-turn marker) to (words outside of call blocks, calls in order)."""
    words: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        words.append(text[position:start].strip())
        inner, position, problem = _block(text, start + len(OPEN))
        calls.append(_call(f"call_{first_call + len(calls)}", inner, text[start:position], problem))
    words.append(text[position:].strip())
    return "\n".join(part for part in words if part), tuple(calls)


def _block(text: str, start: int) -> tuple[str, int, str]:
    """The block whose inside begins at `start`: (inside, index after the block, problem of its frame).

    Where the inside is JSON, a tag within one of its strings does not end the block.
    """
    begin = _skip_blanks(text, start)
    try:
        _, end = _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        end = -1
    if end >= 0 and text.startswith(CLOSE, after := _skip_blanks(text, end)):
        return text[begin:end], after + len(CLOSE), ""
    stops = [(found, len(CLOSE)) for found in [text.find(CLOSE, start)] if found >= 0]
    stops += [(found, 0) for found in [text.find(OPEN, start)] if found >= 0]
    if not stops:
        return text[start:], len(text), f"{OPEN} is not closed by {CLOSE}"
    end, width = min(stops)
    return text[start:end], end + width, "" if width else f"{OPEN} is not closed by {CLOSE}"


def _skip_blanks(text: str, index: int) -> int:
    while index < len(text) and text[index] in " \t\r\n":
        index += 1
    return index


def _call(call_id: str, inner: str, raw: str, problem: str) -> ToolCall:
    value, fault = parse_arguments(inner)
    problem = problem or fault.replace("arguments are", "the call is").replace("arguments must", "the call must")
    name = value.get("name")
    if not problem and not inner.strip():
        problem = "the call is empty"
    if not problem and (not isinstance(name, str) or not name):
        problem = "the call has no name"
    arguments: Any = value.get("arguments", {})
    if not problem and isinstance(arguments, str):  # JSON text inside JSON, as the OpenAI API writes it
        arguments, problem = parse_arguments(arguments)
    if not problem and not isinstance(arguments, dict):
        problem = "arguments must be a JSON object"
    if not problem and (extra := sorted(set(value) - {"name", "arguments", "id"})):
        problem = f"unknown keys beside name and arguments: {', '.join(extra)[:100]}"
    name = name if isinstance(name, str) else ""
    if problem:
        return ToolCall(call_id, name, {}, f"malformed call: {problem}. Write {OPEN}\n{FORM}\n{CLOSE}", raw)
    return ToolCall(call_id, name, arguments)


def render_call(call: ToolCall) -> str:
    """A call as its block; a malformed one as it was sampled."""
    if call.problem:
        return call.raw
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f'{OPEN}\n{{"name": "{call.name}", "arguments": {arguments}}}\n{CLOSE}'


def render_turn(text: str, calls: Sequence[ToolCall]) -> str:
    """What an assistant turn with these words and calls looks like (without the end-of-turn marker)."""
    return "\n".join(([text] if text else []) + [render_call(call) for call in calls])
