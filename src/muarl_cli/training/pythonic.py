"""Calls written as a list of Python calls, `[get_order(order_id='48213')]`, between two tags: LFM2's way.

Values are Python literals or JSON, so what they mean they say themselves. Invariant: nothing is executed and no name is
looked up; a block that is not such a list to its last character is malformed, whole.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.tools import MAX_ARGUMENT_CHARS, MAX_DEPTH, ToolSpec, parse_json
from muarl_cli.training.hermes import Found

_NAME = re.compile(r"\s*([^\s=(),'\"\[\]{}]+)\s*\(")
_KEY = re.compile(r"\s*([^\s=(),'\"\[\]{}]+)\s*=")
_STEP = re.compile(r"\s*([,)])")
_PART = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^'\"()\[\]{},]+|[()\[\]{},]", re.DOTALL)
"""a quoted text, or what is outside of any: brackets and commas one by one"""
_LIST, _EMPTY, _NEXT = re.compile(r"\s*\["), re.compile(r"\s*\)"), re.compile(r"\s*([,\]])")


class _Malformed(ValueError):
    pass


@dataclass(frozen=True)
class Pythonic:
    """The tags around the list."""

    open: str
    close: str

    @property
    def form(self) -> str:
        """What a person, or a model, should write."""
        return f"{self.open}[TOOL(KEY=VALUE, ...), ...]{self.close}"

    def find(self, text: str, position: int) -> int:
        """Where the next block begins, -1 for nowhere."""
        return text.find(self.open, position)

    def read(self, text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[Found], int]:
        """The calls of the block that begins at `start`, and the index after it."""
        begin = start + len(self.open)
        try:
            found, position = _calls(text, begin)
            after = re.compile(rf"\s*{re.escape(self.close)}").match(text, position)
            if not after:
                raise _Malformed(f"the list is not closed by {self.close}")
            if after.end() - start > MAX_ARGUMENT_CHARS:
                raise _Malformed(f"arguments have more than {MAX_ARGUMENT_CHARS} characters")
        except _Malformed as fault:
            ends = [(at, len(tag)) for tag in (self.close,) if (at := text.find(tag, begin)) >= 0]
            ends += [(at, 0) for tag in (self.open,) if (at := text.find(tag, begin)) >= 0]
            at, width = min(ends, default=(len(text), 0))
            return [Found("", {}, str(fault))], at + width
        return found, after.end()


def _calls(text: str, position: int) -> tuple[list[Found], int]:
    """The list that begins at `position`, and the index after it."""
    opened = _LIST.match(text, position)
    if not opened:
        raise _Malformed("no list of calls follows")
    found, position = list[Found](), opened.end()
    while True:
        named = _NAME.match(text, position)
        if not named:
            raise _Malformed("a call does not begin with TOOL(")
        arguments, position = _arguments(text, named.end())
        found.append(Found(named[1], arguments))
        step = _NEXT.match(text, position)
        if not step:
            raise _Malformed(f"after the call of {named[1][:64]} comes neither , nor ]")
        position = step.end()
        if step[1] == "]":
            return found, position


def _arguments(text: str, position: int) -> tuple[dict[str, Any], int]:
    """Keys and values up to the closing bracket of a call, and the index after it."""
    arguments = dict[str, Any]()
    empty = _EMPTY.match(text, position)
    if empty:
        return arguments, empty.end()
    while True:
        key = _KEY.match(text, position)
        if not key:
            raise _Malformed("an argument does not begin with KEY=")
        if key[1] in arguments:
            raise _Malformed(f"{key[1][:64]} is given twice")
        end = _end_of_value(text, key.end())
        arguments[key[1]] = _literal(text[key.end() : end].strip(), key[1])
        step = _STEP.match(text, end)
        if not step:
            raise _Malformed(f"after the value of {key[1][:64]} comes neither , nor )")
        position = step.end()
        if step[1] == ")":
            return arguments, position


def _end_of_value(text: str, position: int) -> int:
    """The comma or bracket that ends the value which begins at `position`; the end of the text where there is none."""
    depth = 0
    while depth <= MAX_DEPTH and (part := _PART.match(text, position)):
        if not depth and part[0] in ")]},":
            return position
        depth += (part[0] in "([{") - (part[0] in ")]}")
        position = part.end()
    return position


def _literal(text: str, key: str) -> Any:
    """The value of JSON or of a Python literal that JSON could say. Names are never looked up."""
    value, problem = parse_json(text)
    if problem:
        try:
            with warnings.catch_warnings():  # of escapes that Python does not know
                warnings.simplefilter("ignore")
                value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = ...
    if not _plain(value, MAX_DEPTH):
        raise _Malformed(f"the value of {key[:64]} is neither a Python literal nor JSON")
    return value


def _plain(value: Any, depth: int) -> bool:
    """Whether JSON has such a value, nested no deeper than that."""
    if isinstance(value, list):
        return depth > 0 and all(_plain(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(key, str) and _plain(item, depth - 1) for key, item in value.items())
    return value is None or isinstance(value, str | bool | int) or (type(value) is float and abs(value) < float("inf"))
