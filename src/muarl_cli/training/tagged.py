"""Calls whose name and arguments stand as bare text between tags: Qwen3-Coder's and Qwen3.5's `<function=NAME>`,
Nemotron 3's, GLM's `<arg_key>`.

A call is `open` NAME `named`, then `key` KEY `value` VALUE `end` for each argument, then `close`. The tags are learned
from the template (`call_syntax`). Invariant: a value is the text between its tags, to the character, without the one
blank that the template writes on either side; what it means its schema says (`values`). A value ends at the first of
the syntax's own tags, and if that is not its end tag the call is malformed: a call that was left open never swallows
the next one. So a string that holds such a tag cannot be written in this syntax (`TemplateFormat.demonstrate` refuses
it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from muarl_cli.conversation.tools import MAX_ARGUMENT_CHARS, ToolSpec
from muarl_cli.training.hermes import Found
from muarl_cli.training.values import kinds_of, read_value


@dataclass(frozen=True)
class Tagged:
    """The texts around name, keys and values, as the template writes them."""

    open: str
    named: str
    key: str
    value: str
    """its trailing blank stands before every value"""
    end: str
    """its leading blank stands after every value"""
    close: str
    spelt: tuple[tuple[str, Any], ...] = ()
    """the template's own words for true, false and null, where they are not JSON's"""

    @property
    def form(self) -> str:
        """What a person, or a model, should write."""
        return f"{self.open}TOOL{self.named}{self.key}KEY{self.value}VALUE{self.end}...{self.close}"

    def find(self, text: str, position: int) -> int:
        """Where the next block begins, -1 for nowhere. A call without its outer tag begins one too."""
        found = self._begins.search(text, position)
        return found.start() if found else -1

    def read(self, text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[Found], int]:
        """The call whose block begins at `start`, and the index after the block."""
        opened = self._opens.match(text, start)
        if not opened:
            begins = f"{''.join(self.open.split())}TOOL{self.named.strip()}"
            return [Found("", {}, f"it does not begin with {begins}")], self._resume(text, start + 1)
        name = opened["name"].strip()
        arguments, problem, end = self._arguments(text, opened.end(), _schema(name, tools))
        if not name:
            problem = "the call has no name"
        if problem:
            end = self._resume(text, opened.end())
        elif end - start > MAX_ARGUMENT_CHARS:
            problem = f"arguments have {end - start} characters; at most {MAX_ARGUMENT_CHARS} are accepted"
        return [Found(name, {} if problem else arguments, problem)], end

    def _arguments(self, text: str, position: int, schema: Mapping[str, Any]) -> tuple[dict[str, Any], str, int]:
        """(arguments, what is wrong, index after the call) from behind its name."""
        known = schema.get("properties")
        spelt, arguments = dict(self.spelt), dict[str, Any]()
        while not (closed := self._closes.match(text, position)):
            field = self._field.match(text, position)
            if not field:
                return (
                    {},
                    f"{self._after(arguments)} comes neither {self.key.strip()} nor {self.close.split()[0]}",
                    position,
                )
            key, stop = field["key"].strip(), self._stops.search(text, field.end())
            if not stop or not stop["end"]:
                return {}, f"the value of {key[:64]!r} is not closed by {self.end.strip()}", position
            if key in arguments:
                return {}, f"{key[:64]!r} is given twice", position
            before, after = _pads(self.value, self.end)
            value = text[field.end() : stop.start()].removeprefix(before).removesuffix(after)
            own = known.get(key) if isinstance(known, Mapping) else None
            arguments[key] = read_value(value, kinds_of(own, schema), spelt)
            position = stop.end()
        return arguments, "", closed.end()

    def _after(self, arguments: Mapping[str, Any]) -> str:
        return f"after the value of {list(arguments)[-1][:64]!r}" if arguments else "after the name"

    def _resume(self, text: str, position: int) -> int:
        """Where a malformed block ends: after the next closing tag, or before the next opening one."""
        found = self._bounds.search(text, position)
        if not found:
            return len(text)
        return found.end() if found["close"] else found.start()

    # Tags as patterns: blanks between and around them may be any.

    @cached_property
    def _outer(self) -> str:
        """The first tag of a block."""
        first, bracket, _ = self.open.partition(">")
        return first + bracket

    @cached_property
    def _begins(self) -> re.Pattern[str]:
        inner = self.open.removeprefix(self._outer).strip()
        return re.compile("|".join(_loose(tag) for tag in (self._outer, inner) if tag))

    @cached_property
    def _opens(self) -> re.Pattern[str]:
        name = r"[^<>\n]*?" if self.named.strip() else r"[^<>\n]*"
        return re.compile(rf"{_loose(self.open)}(?P<name>{name}){_loose(self.named)}")

    @cached_property
    def _field(self) -> re.Pattern[str]:
        return re.compile(rf"\s*{_loose(self.key)}(?P<key>[^<>\n]+?){_loose(self.value)}")

    @cached_property
    def _stops(self) -> re.Pattern[str]:
        return re.compile(rf"(?P<end>{_loose(self.end)})|{_loose(self.key)}|{_loose(self.open)}")

    @cached_property
    def _closes(self) -> re.Pattern[str]:
        return re.compile(rf"\s*{_loose(self.close)}")

    @cached_property
    def _bounds(self) -> re.Pattern[str]:
        last = self.close[self.close.rindex("<") :]
        return re.compile(rf"(?P<close>{_loose(last)})|{_loose(self._outer)}")


def _loose(tags: str) -> str:
    """A pattern for tags: no blanks around them, any between."""
    return r"\s*".join(map(re.escape, tags.split()))


def _pads(value: str, end: str) -> tuple[str, str]:
    """The blanks before and after every value."""
    return value[len(value.rstrip()) :], end[: len(end) - len(end.lstrip())]


def _schema(name: str, tools: Sequence[ToolSpec]) -> Mapping[str, Any]:
    return next((tool.parameters for tool in tools if tool.name == name), {})
