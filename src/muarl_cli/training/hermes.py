"""Tool calls as text, Hermes style or in another model family's: parsing what a model sampled, rendering what a
demonstration says. Calls are JSON here; those between tags are in `tagged`.

Invariant: parsing never raises and never drops anything silently; a block that is no well-formed call becomes a
`ToolCall` with `problem` set and the sampled text in `raw`. Rendering a parsed well-formed call and parsing it again
gives the same call. Calls get the ids call_0, call_1, ... in the order of the episode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from muarl_cli.conversation.tools import ToolCall, ToolSpec, parse_arguments

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Found:
    """A call as it was read; where `problem` says what is wrong with it, it has no arguments."""

    name: str
    arguments: dict[str, Any]
    problem: str = ""


class CallSyntax(Protocol):
    """How a model family writes calls."""

    @property
    def form(self) -> str:
        """What a person, or a model, should write."""
        ...

    def find(self, text: str, position: int) -> int:
        """Where the next block begins, -1 for nowhere."""
        ...

    def read(self, text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[Found], int]:
        """The calls of the block that begins at `start`, and the index after it. `tools` say what bare text means."""
        ...


@dataclass(frozen=True)
class Syntax:
    """How a model family writes calls: a JSON object each between two tags, or a list of them. Without a closing tag a
    block ends with its JSON; without an opening one it begins where the turn does, or a line that holds such JSON."""

    open: str = OPEN
    close: str = CLOSE
    name: str = "name"
    arguments: str = "arguments"
    listed: bool = False

    @property
    def form(self) -> str:
        """What a person, or a model, should write."""
        one = f'{{"{self.name}": TOOL, "{self.arguments}": {{...}}}}'
        return "\n".join(part for part in (self.open, f"[{one}]" if self.listed else one, self.close) if part)

    def find(self, text: str, position: int) -> int:
        """Where the next block begins, -1 for nowhere."""
        if self.open:
            return text.find(self.open, position)
        bracket = "[" if self.listed else "{"
        begin = _skip_blanks(text, position)
        if not position and text.startswith(bracket, begin):
            return begin
        lines = (m.end() for m in re.finditer(r"(?:^|\n)[ \t]*(?=[\[{])", text[position:]))
        return next(
            (position + at for at in lines if text[position + at] == bracket and self._reads(text, position + at)), -1
        )

    def read(self, text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[Found], int]:
        """See `CallSyntax`: JSON says itself what it means."""
        inner, end, problem = _block(text, start + len(self.open), self)
        return [_call(one, problem, self) for one in (_members(inner) if self.listed and not problem else [inner])], end

    def _reads(self, text: str, start: int) -> bool:
        """Whether JSON with the name of a tool begins there."""
        try:
            value, _ = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return False
        entry = value[0] if isinstance(value, list) and value else value
        return isinstance(entry, dict) and self.name in entry


HERMES = Syntax()


def parse_turn(
    text: str, first_call: int = 0, syntax: CallSyntax = HERMES, tools: Sequence[ToolSpec] = ()
) -> tuple[str, tuple[ToolCall, ...]]:
    """One assistant turn (without its end-of-turn marker) to (words outside of call blocks, calls in order)."""
    words: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := syntax.find(text, position)) >= 0:
        words.append(text[position:start].strip())
        found, position = syntax.read(text, start, tools)
        for one in found:
            name, problem, raw = f"call_{first_call + len(calls)}", "", ""
            if one.problem:
                problem, raw = f"malformed call: {one.problem}. Write {syntax.form}", text[start:position]
            calls.append(ToolCall(name, one.name, one.arguments, problem, raw))
    words.append(text[position:].strip())
    return "\n".join(part for part in words if part), tuple(calls)


def _members(inner: str) -> list[str]:
    """The calls of a list, as texts; the text as it is where it is no list of objects."""
    try:
        found = json.loads(inner)
    except (ValueError, RecursionError):
        return [inner]
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        return [inner]
    return [json.dumps(each) for each in found]


def _block(text: str, start: int, syntax: Syntax) -> tuple[str, int, str]:
    """The block whose inside begins at `start`: (inside, index after the block, problem of its frame).

    Where the inside is JSON, a tag within one of its strings does not end the block.
    """
    begin = _skip_blanks(text, start)
    try:
        _, end = _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        end = -1
    if end >= 0 and not syntax.close:
        return text[begin:end], end, ""
    if end >= 0 and text.startswith(syntax.close, after := _skip_blanks(text, end)):
        return text[begin:end], after + len(syntax.close), ""
    unclosed = f"{syntax.open} is not closed by {syntax.close}" if syntax.close else "the call is no JSON"
    stops = [(found, len(tag)) for tag in [syntax.close] if tag and (found := text.find(tag, start)) >= 0]
    stops += [(found, 0) for tag in [syntax.open] if tag and (found := text.find(tag, start)) >= 0]
    if not stops:
        return text[start:], len(text), unclosed
    end, width = min(stops)
    return text[start:end], end + width, "" if width else unclosed


def _skip_blanks(text: str, index: int) -> int:
    while index < len(text) and text[index] in " \t\r\n":
        index += 1
    return index


def _call(inner: str, problem: str, syntax: Syntax) -> Found:
    value, fault = parse_arguments(inner)
    problem = problem or fault.replace("arguments are", "the call is").replace("arguments must", "the call must")
    name = value.get(syntax.name)
    if not problem and not inner.strip():
        problem = "the call is empty"
    if not problem and (not isinstance(name, str) or not name):
        problem = "the call has no name"
    arguments: Any = value.get(syntax.arguments, {})
    if not problem and isinstance(arguments, str):  # JSON text inside JSON, as the OpenAI API writes it
        arguments, problem = parse_arguments(arguments)
    if not problem and not isinstance(arguments, dict):
        problem = "arguments must be a JSON object"
    if not problem and (extra := sorted(set(value) - {syntax.name, syntax.arguments, "id"})):
        problem = f"unknown keys beside {syntax.name} and {syntax.arguments}: {', '.join(extra)[:100]}"
    name = name if isinstance(name, str) else ""
    return Found(name, {} if problem else arguments, problem)


def render_call(call: ToolCall) -> str:
    """A call as its block; a malformed one as it was sampled."""
    if call.problem:
        return call.raw
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f'{OPEN}\n{{"name": "{call.name}", "arguments": {arguments}}}\n{CLOSE}'


def render_turn(text: str, calls: Sequence[ToolCall]) -> str:
    """What an assistant turn with these words and calls looks like (without the end-of-turn marker)."""
    return "\n".join(([text] if text else []) + [render_call(call) for call in calls])
