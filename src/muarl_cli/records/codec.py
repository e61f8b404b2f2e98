"""An episode as one line of JSON, and back.

Invariant: `decode(encode(e))` is `e` (without its token rows), a changed byte is noticed by the checksum at the end of
the line, and whatever `decode` would refuse, `encode` refuses first: what was written can be read. The first five
fields stand in a fixed order, so that a log is indexed without parsing it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, Episode, StateHashes
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass, Write
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical
from muarl_cli.records import strict_json

MAJOR = 1
MAX_LINE_BYTES = 32 << 20
"""a line beyond this is refused unread; the largest episodes of the paper's setting have about 1 MB"""

_VERSION = re.compile(r"muarl\.episode/(\d{1,6})\.(\d{1,6})")
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"\}\Z')
_HEAD = re.compile(
    rb'\{"schema":"(muarl\.episode/\d{1,6}\.\d{1,6})","episode_id":"([0-9A-Za-z_.:-]{1,128})","valid":(true|false),'
    rb'"attempt":(\d{1,9}),"tokens":(?:null|\{"rows":(\d{1,9}),"sha256":"([0-9a-f]{64})"\}),'
)
_ID = re.compile(r"[0-9A-Za-z_.:-]{1,128}")
_TEXTS = (
    "schema", "episode_id", "run_id", "stage", "group_id", "scenario", "task_id", "task_hash", "split", "policy_hash",
)  # fmt: skip
_NUMBERS = ("step", "rollout", "attempt", "seed")
_MAPPINGS = ("agent", "user", "usage", "detail", "volatile")
_FIRST = ("schema", "episode_id", "valid", "attempt")
_NOT_WRITTEN = "rows"


class BadLine(MuarlError):
    """A line that is no intact episode."""

    def __init__(self, why: str) -> None:
        super().__init__("not an intact episode", why=why, code=ExitCode.BAD_DATA)


class UnknownVersion(MuarlError):
    """An intact line of a format this version does not know: never taken for damage."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"episodes of format {schema[:60]!r} cannot be read",
            why=f"this muarl reads muarl.episode/{MAJOR}.x",
            next_step="read them with the muarl version that wrote them, or upgrade muarl",
            code=ExitCode.BAD_DATA,
        )


@dataclass(frozen=True, slots=True)
class RowsRef:
    """Which token rows belong to an episode: how many, and the SHA-256 of their content."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of an intact line without parsing it."""

    episode_id: str
    valid: bool
    attempt: int
    tokens: RowsRef | None


def to_dict(episode: Episode, tokens: RowsRef | None = None) -> dict[str, Any]:
    """The episode as a JSON value in the order of the log; free-form parts in canonical form. Raises ValueError."""
    value: dict[str, Any] = {name: getattr(episode, name) for name in _FIRST}
    value["tokens"] = {"rows": tokens.rows, "sha256": tokens.sha256} if tokens else None
    for field in fields(Episode):
        if field.name in value or field.name == _NOT_WRITTEN:
            continue
        item = getattr(episode, field.name)
        if field.name == "events":
            item = [_event_to_dict(event) for event in item]
        elif field.name == "end":
            item = {"reason": item.reason.value, "detail": item.detail}
        elif field.name == "state":
            item = {"initial": item.initial, "final": item.final, "gold": item.gold}
        elif field.name in _MAPPINGS:
            item = _free(item)
        value[field.name] = item
    return value


def encode(episode: Episode, tokens: RowsRef | None = None) -> bytes:
    """One line with its newline: ASCII, no NaN, checksum last. Raises `BadLine` for what could not be read back."""
    return seal(episode, tokens)[0]


def seal(episode: Episode, tokens: RowsRef | None = None) -> tuple[bytes, Episode]:
    """The line of `encode`, and the episode as `decode` will read it."""
    try:
        value = to_dict(episode, tokens)
        body = strict_json.dumps(value).encode("ascii")
        if len(body) > MAX_LINE_BYTES - 64:
            raise ValueError(f"{len(body)} bytes; at most {MAX_LINE_BYTES} are written")
        as_read = from_dict(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadLine(f"{getattr(episode, 'episode_id', '')!r}: {error}") from error
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body), as_read


def head(line: bytes) -> Head:
    """Check version and checksum of a line, and read its first fields. Raises `BadLine` or `UnknownVersion`."""
    line = line[:-1] if line.endswith(b"\n") else line
    _check(line)
    found = _HEAD.match(line)
    if found:
        schema, episode_id, valid, attempt, rows, sha256 = found.groups()
        _check_version(schema.decode())
        ref = RowsRef(int(rows), sha256.decode()) if rows else None
        return Head(episode_id.decode(), valid == b"true", int(attempt), ref)
    value = _parse(line)
    episode = from_dict(value)
    return Head(episode.episode_id, episode.valid, episode.attempt, _ref(value.get("tokens")))


def decode(line: bytes) -> Episode:
    """An episode from its line, without its token rows; raises `BadLine` or `UnknownVersion`."""
    line = line[:-1] if line.endswith(b"\n") else line
    _check(line)
    return from_dict(_parse(line))


def from_dict(value: Any) -> Episode:
    """An episode from its JSON value; unknown fields are ignored (a later minor version). Raises `BadLine`."""
    if not isinstance(value, dict):
        raise BadLine("not an object")
    _check_version(_take(value, "schema", str))
    if not _ID.fullmatch(_take(value, "episode_id", str)):
        raise BadLine("'episode_id' has characters that no id has")
    _ref(value.get("tokens"))
    known: dict[str, Any] = {name: _take(value, name, str) for name in _TEXTS}
    known |= {name: _take(value, name, int) for name in _NUMBERS}
    known |= {name: _take(value, name, dict) for name in _MAPPINGS}
    end, state, reward = _take(value, "end", dict), _take(value, "state", dict), value.get("reward")
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, (int, float))):
        raise BadLine("'reward' is no number")
    return Episode(
        **known,
        events=tuple(_event_from_dict(event) for event in _take(value, "events", list)),
        end=End(_member(EndReason, end, "reason"), _take(end, "detail", str)),
        valid=_take(value, "valid", bool),
        reward=reward,
        state=StateHashes(_take(state, "initial", str), _take(state, "final", str), _take(state, "gold", str)),
    )


def without_volatile(line: bytes) -> dict[str, Any]:
    """The reproducible part of a line, token digest included: what an artifact hash is taken over."""
    line = line[:-1] if line.endswith(b"\n") else line
    _check(line)
    value: dict[str, Any] = _parse(line)
    return {key: item for key, item in value.items() if key not in ("volatile", "crc")}


def _check(line: bytes) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"longer than {MAX_LINE_BYTES} bytes")
    found = _CRC.search(line[-24:])
    if not found:
        raise BadLine("no checksum at its end")
    cut = len(line) - len(found.group())
    if zlib.crc32(b"}", zlib.crc32(memoryview(line)[:cut])) != int(found.group(1), 16):
        raise BadLine("its checksum does not match")


def _check_version(schema: str) -> None:
    found = _VERSION.fullmatch(schema)
    if not found or int(found.group(1)) != MAJOR:
        raise UnknownVersion(schema)


def _parse(line: bytes) -> Any:
    try:
        return strict_json.loads(line, MAX_LINE_BYTES)
    except ValueError as error:
        raise BadLine(str(error)[:200]) from None


def _ref(value: Any) -> RowsRef | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadLine("'tokens' is no object")
    return RowsRef(_take(value, "rows", int), _take(value, "sha256", str))


def _take(value: Mapping[str, Any], name: str, kind: type) -> Any:
    item = value.get(name)
    if type(item) is not kind:
        raise BadLine(f"{name!r} should be {kind.__name__}, not {type(item).__name__}")
    return item


def _member(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    text = _take(value, name, str)
    member = _members(kind).get(text)
    if member is None:
        raise BadLine(f"{name!r} is {text[:40]!r}; known are {', '.join(kind)}")
    return member


@cache
def _members(kind: Any) -> Mapping[str, Any]:
    """The members of an enum by value: `kind(text)` says the same at five times the cost, and events have many."""
    return {member.value: member for member in kind}


def _event_to_dict(event: Event) -> dict[str, Any]:
    value: dict[str, Any] = {"i": event.i, "actor": event.actor.value, "kind": event.kind.value, "text": event.text}
    if event.call is not None:
        value["call"] = _call_to_dict(event.call)
    if event.tags:
        value["tags"] = list(event.tags)
    if event.thought:
        value["thought"] = event.thought
    return value


def _call_to_dict(call: CallRecord) -> dict[str, Any]:
    return {
        "id": call.id,
        "name": call.name,
        "arguments": None if call.arguments is None else _free(call.arguments),
        "class": None if call.klass is None else call.klass.value,
        "ok": call.ok,
        "writes": [{"entity": write.entity, "id": write.id, "owner": write.owner} for write in call.writes],
    }


def _event_from_dict(value: Any) -> Event:
    if not isinstance(value, dict):
        raise BadLine("an event is no object")
    call = None if value.get("call") is None else _call_from_dict(_take(value, "call", dict))
    tags = _texts(value.get("tags", []), "tags")
    actor, kind = _member(Actor, value, "actor"), _member(Kind, value, "kind")
    thought = _take(value, "thought", str) if "thought" in value else ""
    return Event(_take(value, "i", int), actor, kind, _take(value, "text", str), call, tags, thought)


def _call_from_dict(value: dict[str, Any]) -> CallRecord:
    ok = value.get("ok")
    if ok is not None and not isinstance(ok, bool):
        raise BadLine("'ok' is neither null nor a boolean")
    return CallRecord(
        id=_take(value, "id", str),
        name=_take(value, "name", str),
        arguments=None if value.get("arguments") is None else _take(value, "arguments", dict),
        klass=None if value.get("class") is None else _member(ToolClass, value, "class"),
        ok=ok,
        writes=tuple(_write_from_dict(write) for write in _take(value, "writes", list)),
    )


def _write_from_dict(value: Any) -> Write:
    if not isinstance(value, dict):
        raise BadLine("a write is no object")
    return Write(_take(value, "entity", str), _take(value, "id", str), _take(value, "owner", str))


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or (value and not all(isinstance(item, str) for item in value)):
        raise BadLine(f"{name!r} is no list of texts")
    return tuple(value)


def _free(value: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(value)
    try:
        strict_json.check_depth(plain)
        return dict(canonical(plain))
    except RecursionError:
        raise ValueError("nested too deep") from None


def field_names() -> Iterable[str]:
    """The names of the fields of a line, `tokens` and `crc` included."""
    return [*(field.name for field in fields(Episode) if field.name != _NOT_WRITTEN), "tokens", "crc"]
