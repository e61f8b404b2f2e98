"""How a template writes tool calls, read off turns that it renders: as JSON (`hermes`), as text between tags
(`tagged`), or as a list of Python calls (`pythonic`).

Invariant: a syntax is learned, never recognised by a model's name, and is only as good as the probe that reads rendered
calls back. What is neither is refused with the text of the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.tools import parse_json
from muarl_cli.training.hermes import CallSyntax, Syntax
from muarl_cli.training.pythonic import Pythonic
from muarl_cli.training.tagged import Tagged

Calls = Sequence[tuple[str, Mapping[str, Any]]]
_JSON = json.JSONDecoder()
_NAME, _KEYS, _VALUES = "fetch_row", ("colour_of", "size_of"), ("dark green", "rather large")
"""words that no syntax has among its tags"""


def learn_syntax(shown: Callable[[Calls], str]) -> CallSyntax | None:
    """The syntax of `shown`, which renders a turn of calls alone; None where it is none that is known."""
    arguments = {_KEYS[0]: _VALUES[0]}
    body = shown([(_NAME, arguments)])
    return _as_json(body, arguments) or _as_tags(shown, body.strip()) or _as_python(body.strip())


def _as_json(body: str, arguments: Mapping[str, Any]) -> Syntax | None:
    """A JSON object with the name and the arguments, alone or in a list."""
    for start in (i for i, char in enumerate(body) if char in "[{"):
        try:
            value, end = _JSON.raw_decode(body, start)
        except ValueError:
            continue
        listed = isinstance(value, list) and len(value) == 1
        entry = value[0] if listed else value
        if not isinstance(entry, dict):
            continue
        named = [key for key, item in entry.items() if item == _NAME]
        given = [key for key, item in entry.items() if item == arguments or _loaded(item) == arguments]
        if named and given:
            return Syntax(body[:start].strip(), body[end:].strip(), named[0], given[0], listed)
    return None


def _loaded(item: Any) -> Any:
    return parse_json(item)[0] if isinstance(item, str) else None


def _as_tags(shown: Callable[[Calls], str], one: str) -> Tagged | None:
    """The texts around a name, two keys and two values; the last tag before a key is the key's own."""
    two = shown([(_NAME, dict(zip(_KEYS, _VALUES, strict=True)))]).strip()
    parts = _cut(two, _NAME, _KEYS[0], _VALUES[0], _KEYS[1], _VALUES[1])
    if parts is None or "<" not in parts[1]:
        return None
    opening, first, value, between, again, last = parts
    at = first.rindex("<")
    named, key = first[:at], first[at:]
    end = between.removesuffix(key)
    close = last.removeprefix(end.rstrip()).strip()
    alone = shown([(_NAME, {})]).strip()
    if one != opening + _NAME + first + _KEYS[0] + value + _VALUES[0] + last or value != again:
        return None
    if not (between.endswith(key) and last.startswith(end.rstrip()) and "<" in opening and "<" in end and "<" in close):
        return None
    if alone.split(_NAME)[-1].split() != (named + " " + close).split():
        return None
    before, after = one[: one.index(_VALUES[0])], last
    spelt = []
    for meant in (True, False, None):
        text = shown([(_NAME, {_KEYS[0]: meant})]).strip().removeprefix(before).removesuffix(after)
        if text != json.dumps(meant):
            spelt.append((text, meant))
    return Tagged(opening.strip(), named, key, value, end, close, tuple(spelt))


def _as_python(body: str) -> Pythonic | None:
    """A list with one Python call, between two tags."""
    opening, found, rest = body.partition(f"[{_NAME}({_KEYS[0]}=")
    inner, ended, close = rest.partition(")]")
    if not found or not ended or inner.strip("'\"") != _VALUES[0] or not opening.strip() or not close.strip():
        return None
    return Pythonic(opening.strip(), close.strip())


def _cut(text: str, *words: str) -> list[str] | None:
    """The texts around words that stand in this order."""
    parts = []
    for word in words:
        part, found, text = text.partition(word)
        if not found:
            return None
        parts.append(part)
    return [*parts, text]
