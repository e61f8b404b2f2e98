"""Chat logs of real people, as files: one JSON object a line, redacted before they come here.

    {"id": "c1", "messages": [{"role": "user", "content": "i want to return something"}, ...]}

Roles are user or customer, and agent, assistant or bot; others (system, tool) are left out. Invariants: nothing is
guessed into a line that is not of this form, it is refused with its place; what looks like an e-mail address, a phone
number or a card number is named by place and kind and never repeated.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.conversation.events import Actor
from muarl_cli.errors import ExitCode, MuarlError

ROLES = {
    "user": Actor.USER,
    "customer": Actor.USER,
    "human": Actor.USER,
    "agent": Actor.AGENT,
    "assistant": Actor.AGENT,
    "bot": Actor.AGENT,
}
LEFT_OUT = frozenset({"system", "developer", "tool", "function"})
FORM = 'each line is {"id": "...", "messages": [{"role": "user" or "agent", "content": "..."}, ...]}'
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"(?<![\w.])\+?\d(?:[ ()./-]{0,2}\d){6,22}(?!\w)")


@dataclass(frozen=True)
class Message:
    """What one party said."""

    actor: Actor
    text: str


@dataclass(frozen=True)
class Chat:
    """One conversation of a person with an agent."""

    id: str
    messages: tuple[Message, ...]
    place: str
    """file and line"""


@dataclass(frozen=True)
class Unredacted:
    """Something that looks like a person's data."""

    place: str
    kind: str


def read_chats(files: Sequence[Path]) -> list[Chat]:
    """All chats of the files, in order. Raises `MuarlError` (bad data) for a line of another form, a repeated id, and a
    chat in which one of the two never speaks."""
    chats = [chat for file in files for chat in _read(file)]
    repeated = [name for name, count in Counter(chat.id for chat in chats).items() if count > 1]
    if repeated:
        raise _bad(f"the id {repeated[0]!r} comes twice", ", ".join(str(file) for file in files))
    if not chats:
        raise MuarlError(
            "there is no chat in these files",
            where=", ".join(str(file) for file in files),
            next_step=FORM,
            code=ExitCode.MISSING_INPUT,
        )
    return chats


def _read(file: Path) -> Iterator[Chat]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MuarlError(
            "the transcript cannot be read",
            where=str(file),
            why=getattr(error, "strerror", None) or str(error),
            next_step=f"name a file of UTF-8 text in which {FORM}",
            code=ExitCode.MISSING_INPUT,
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _chat(line, f"{file.name}:{number}")


def _chat(line: str, place: str) -> Chat:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _bad(f"this is no JSON: {error}", place) from error
    if not isinstance(row, Mapping) or not isinstance(row.get("messages"), list):
        raise _bad("there is no list of messages", place)
    messages = tuple(message for item in row["messages"] for message in _message(item, place))
    if {message.actor for message in messages} != {Actor.USER, Actor.AGENT}:
        raise _bad("one of the two parties never speaks", place)
    return Chat(str(row.get("id") or place), messages, place)


def _message(item: Any, place: str) -> Iterable[Message]:
    role = item.get("role") if isinstance(item, Mapping) else None
    if role in LEFT_OUT:
        return ()
    if role not in ROLES or not isinstance(item.get("content"), str | None):
        raise _bad(f"a message of role {role!r} is not of this form", place)
    text = (item["content"] or "").strip()
    return (Message(ROLES[role], text),) if text else ()


def unredacted(chats: Iterable[Chat]) -> list[Unredacted]:
    """What looks like a person's data, a place and kind once."""
    found = {(chat.place, kind): None for chat in chats for message in chat.messages for kind in _kinds(message.text)}
    return [Unredacted(place, kind) for place, kind in found]


def _kinds(text: str) -> Iterator[str]:
    if _EMAIL.search(text):
        yield "e-mail address"
    for run in _DIGITS.findall(text):
        digits = [int(sign) for sign in run if sign.isdigit()]
        if 13 <= len(digits) <= 19 and _luhn(digits):
            yield "card number"
        elif 7 <= len(digits) <= 15:
            yield "phone number"


def _luhn(digits: Sequence[int]) -> bool:
    """The checksum of card numbers."""
    doubled = [digit if place % 2 == 0 else digit * 2 for place, digit in enumerate(reversed(digits))]
    return sum(digit - 9 if digit > 9 else digit for digit in doubled) % 10 == 0


def _bad(what: str, place: str) -> MuarlError:
    return MuarlError(what, where=place, next_step=FORM, code=ExitCode.BAD_DATA)
