"""A line can be read back, and a line that cannot is refused with a reason, never with a crash."""

from __future__ import annotations

import json
import pickle
import random
import struct
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from records._work import make_episode

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass, Write
from muarl_cli.errors import MuarlError
from muarl_cli.records import codec, strict_json
from muarl_cli.records.safetensors_file import read_header
from muarl_cli.records.tokens import reference

TEXT = st.text(st.characters(), max_size=12).map(lambda text: json.loads(json.dumps(text)))  # joins surrogate pairs
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
CALL = st.builds(
    CallRecord,
    id=TEXT,
    name=TEXT,
    arguments=st.none() | OBJECT,
    klass=st.none() | st.sampled_from(ToolClass),
    ok=st.none() | st.booleans(),
    writes=st.lists(st.builds(Write, TEXT, TEXT, TEXT), max_size=2).map(tuple),
)
EVENT = st.builds(
    Event,
    st.integers(0, 99),
    st.sampled_from(Actor),
    st.sampled_from(Kind),
    TEXT,
    st.none() | CALL,
    st.lists(TEXT, max_size=2).map(tuple),
    TEXT,
)


@given(st.lists(EVENT, max_size=4), OBJECT, st.sampled_from(EndReason), st.none() | st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_any_episode_survives_a_round_trip_on_one_ascii_line(
    events: list[Event], free: dict[str, object], reason: EndReason, reward: float | None
) -> None:
    episode = replace(
        make_episode(1), events=tuple(events), detail=free, volatile=free, reward=reward, valid=reason.valid
    )
    line = codec.encode(episode)
    assert line.endswith(b"}\n") and line.count(b"\n") == 1 and line.isascii()
    assert codec.decode(line) == episode
    assert codec.head(line).episode_id == episode.episode_id


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\x85d", "lone \ud800 surrogate", "nul \0 and \x1b[31m", '\r\n\\"'])
def test_difficult_texts_stay_on_one_line_and_come_back(text: str) -> None:
    episode = replace(make_episode(1), events=(Event(0, Actor.USER, Kind.SAY, text),))
    line = codec.encode(episode)
    assert len(line.decode("ascii").splitlines()) == 1
    assert codec.decode(line).events[0].text == text


def test_real_lines_satisfy_the_schema_that_ships_with_the_package() -> None:
    schema = json.loads(files("muarl_cli.records").joinpath("schema/episode.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for reason in EndReason:
        episode = make_episode(3, rows=True, reason=reason)
        validator.validate(json.loads(codec.encode(episode, reference(episode.rows))))
    assert set(schema["properties"]) == set(codec.field_names()) == set(schema["required"])
    assert set(schema["properties"]["end"]["properties"]["reason"]["enum"]) == set(EndReason)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), "deep"])
def test_what_could_not_be_read_back_is_not_written(bad: object) -> None:
    if bad == "deep":
        for _ in range(strict_json.MAX_DEPTH + 1):
            bad = [bad]
    with pytest.raises(MuarlError):
        codec.encode(replace(make_episode(1), usage={"x": bad}))
    with pytest.raises(MuarlError):
        codec.encode(replace(make_episode(1), reward=bad))  # type: ignore[arg-type]


def test_every_flipped_byte_is_noticed() -> None:
    line = codec.encode(make_episode(1))
    dice = random.Random(5)
    for _ in range(1000):
        at, bit = dice.randrange(len(line) - 1), 1 << dice.randrange(8)
        with pytest.raises((codec.BadLine, codec.UnknownVersion)):
            codec.head(line[:at] + bytes([line[at] ^ bit]) + line[at + 1 :])


def _resealed(change: dict[str, object]) -> bytes:
    import zlib

    value = json.loads(codec.encode(make_episode(1)))
    del value["crc"]
    body = json.dumps(value | change, separators=(",", ":")).encode()
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def test_a_later_minor_version_with_new_fields_is_read() -> None:
    line = _resealed({"schema": "muarl.episode/1.7", "mood": {"new": [1]}})
    assert codec.decode(line).schema == "muarl.episode/1.7"
    assert codec.head(line) == codec.head(codec.encode(make_episode(1)))


def test_another_major_version_is_refused_and_not_called_damage() -> None:
    line = _resealed({"schema": "muarl.episode/2.0"})
    for read in (codec.decode, codec.head):
        with pytest.raises(codec.UnknownVersion) as caught:
            read(line)
        assert "2.0" in str(caught.value) and "upgrade" in caught.value.next_step


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"valid": 1}, "'valid'"),
        ({"seed": "7"}, "'seed'"),
        ({"end": {"reason": "bored", "detail": ""}}, "user_stop"),
        ({"events": [{"i": 0, "actor": "agent", "kind": "sing", "text": ""}]}, "'kind'"),
        ({"reward": True}, "'reward'"),
        ({"episode_id": "../../etc"}, "'episode_id'"),
    ],
)
def test_wrong_content_under_a_right_checksum_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(codec.BadLine, match=named):
        codec.decode(_resealed(change))


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', "[NaN]", "[Infinity]", "[1e999]", "[" * 100_000, "[" * 100 + "]" * 100, "1" * 5000, "\xff", "{"],
)
def test_hostile_json_ends_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        strict_json.loads(text.encode("latin-1"), 1 << 20)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=80))
def test_no_bytes_make_the_readers_crash(data: bytes) -> None:
    with pytest.raises(MuarlError):
        codec.head(data)


def _header(value: object, size: int) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"a": 1}),
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4),
        _header({n: {"dtype": "F32", "shape": [2], "data_offsets": [o, o + 8]} for n, o in (("a", 0), ("b", 4))}, 12),
        _header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}}, 8),
        _header({"a": {"dtype": "object", "shape": [2], "data_offsets": [0, 8]}}, 8),
        _header([1], 0),
    ],
)
def test_a_file_that_only_claims_to_be_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    with pytest.raises(MuarlError):
        read_header(file)
