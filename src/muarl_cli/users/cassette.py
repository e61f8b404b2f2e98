"""Cassettes: every request to a user model and its reply, on disk, so that a run is played again offline to the byte.

A recorded exchange is found by task, rollout (its seed, which no two rollouts share), the number of the request in the
episode, and the hash of the request's content (messages and sampling). Invariant: in replay nothing is ever asked of a
model; a request that differs from the recorded one ends the episode as a user fault that says what differs. While
recording, what is there already is not asked for again, so an interrupted run pays once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muarl_cli.conversation.protocols import Usage, UserFault
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.engines.chat import ChatSampling, Finish, RawCall, Reply
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical, digest
from muarl_cli.records.files import FILE_MODE, FOLDER_MODE, disk_error

if TYPE_CHECKING:
    from muarl_cli.users.llm import Speaker

SCHEMA = "muarl.cassette/1.0"
_PARTS = ("system prompt", "conversation so far", "sampling")

Place = tuple[str, int, int]
"""task hash, seed of the rollout, number of the request in the episode"""


class Cassette:
    """The recorded exchanges of one file.

    `recording` appends what is new; a record is one write at the end of the file, so a killed process leaves at most
    one torn line, which is skipped, and several processes may record into one file.
    """

    def __init__(self, path: Path, recording: bool) -> None:
        """Raises `MuarlError`: a file that is not there (replay), no cassette, or of an unknown version."""
        self.path, self.recording = Path(path), recording
        self._replies: dict[tuple[Place, str], tuple[str, Reply]] = {}
        """(place, hash) to the model that was asked and its reply"""
        self._parts: dict[Place, dict[str, Any]] = {}
        self.models: set[str] = set()
        """names of the models that were recorded"""
        self.misses = 0
        """requests that were not there"""
        if self.path.exists() and self.path.stat().st_size:
            self._load()
        elif not recording:
            raise MuarlError(
                f"there is no cassette at {self.path}",
                next_step="record one: --user-model NAME user.cassette=FILE",
                code=ExitCode.MISSING_INPUT,
            )

    def __len__(self) -> int:
        return len(self._replies)

    def bound(self, task: str, rollout: int, speaker: Speaker) -> CassetteSpeaker:
        """The speaker of one episode; `speaker` is asked only while recording."""
        return CassetteSpeaker(self, task, rollout, speaker)

    def find(self, place: Place, request: Mapping[str, Any], model: str) -> Reply | None:
        """The recorded reply. While recording it must be of the same `model`: another one has to be asked itself."""
        asked, reply = self._replies.get((place, digest(dict(request))), ("", None))
        return reply if not self.recording or asked == model else None

    def why_not(self, place: Place, request: Mapping[str, Any]) -> str:
        """What a miss is about, in words."""
        task, rollout, number = place
        where = f"request {number + 1} of task {task[:12]}, rollout seed {rollout}"
        recorded = self._parts.get(place)
        if recorded is None:
            return f"{self.path.name} holds no {where}"
        differing = [name for name in _PARTS if recorded.get(name) != request.get(name)]
        return f"{where} is not the recorded one: the {' and the '.join(differing)} changed"

    def record(self, place: Place, turn: int, request: Mapping[str, Any], model: str, reply: Reply) -> None:
        """Append one exchange. Raises `MuarlError` where the disk refuses."""
        row = {
            "task": place[0],
            "rollout": place[1],
            "turn": turn,
            "number": place[2],
            "hash": digest(dict(request)),
            "model": model,
            "request": dict(request),
            "reply": {
                "text": reply.text,
                "finish": reply.finish.value,
                "model": reply.model,
                "input_tokens": reply.usage.input_tokens,
                "output_tokens": reply.usage.output_tokens,
            }
            | ({"calls": [asdict(call) for call in reply.calls]} if reply.calls else {}),
        }
        lines = [row] if self.path.exists() and self.path.stat().st_size else [{"schema": SCHEMA}, row]
        self._append("".join(json.dumps(canonical(line), ensure_ascii=True, allow_nan=False) + "\n" for line in lines))
        self._keep(row)

    def _append(self, text: str) -> None:
        try:
            self.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                data = (("\n" if torn else "") + text).encode("ascii")
                if os.write(fd, data) != len(data):
                    raise OSError(28, "the disk took only a part")
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(error, self.path, len(text)) from error

    def _load(self) -> None:
        lines = self.path.read_bytes().split(b"\n")
        header = _parsed(lines[0])
        schema = str((header or {}).get("schema", ""))
        if schema.split(".")[:2] != SCHEMA.split(".")[:2]:
            raise MuarlError(
                f"{self.path} is no cassette that can be read",
                why=f"its first line says {schema[:40]!r}, not {SCHEMA!r}" if schema else "its first line is no header",
                next_step="name a file that was recorded with user.cassette=FILE, or an episodes.jsonl",
                code=ExitCode.BAD_DATA,
            )
        for line in lines[1:]:
            row = _parsed(line)
            if row is not None and row.keys() >= {"task", "rollout", "number", "hash", "model", "request", "reply"}:
                self._keep(row)

    def _keep(self, row: Mapping[str, Any]) -> None:
        place: Place = (row["task"], row["rollout"], row["number"])
        said = row["reply"]
        usage = Usage(said["input_tokens"], said["output_tokens"])
        reply = Reply(said["text"], Finish(said["finish"]), _calls(said), usage, said["model"])
        self._replies[(place, row["hash"])] = (row["model"], reply)
        self._parts[place] = row["request"]
        self.models.add(row["model"])


class CassetteSpeaker:
    """The user model of one episode, through a cassette."""

    def __init__(self, cassette: Cassette, task: str, rollout: int, speaker: Speaker) -> None:
        self._cassette, self._task, self._rollout, self._speaker = cassette, task, rollout, speaker
        self._asked = 0

    @property
    def model(self) -> str:
        return self._speaker.model

    async def reply(
        self, messages: Sequence[Mapping[str, Any]], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()
    ) -> Reply:
        place = (self._task, self._rollout, self._asked)
        self._asked += 1
        request = request_of(messages, sampling)
        found = self._cassette.find(place, request, self.model)
        if found is not None:
            return found
        self._cassette.misses += 1
        if not self._cassette.recording:
            raise UserFault(f"cassette miss: {self._cassette.why_not(place, request)}")
        reply = await (
            self._speaker.reply(messages, sampling, tools) if tools else self._speaker.reply(messages, sampling)
        )
        self._cassette.record(place, sum(m["role"] == "user" for m in messages), request, self.model, reply)
        return reply


class NoSpeaker:
    """Stands where a live model would, in replay; its name is that of the recorded one. It is never asked."""

    def __init__(self, cassette: Cassette) -> None:
        self.model = "+".join(sorted(cassette.models))

    async def reply(
        self, messages: Sequence[Mapping[str, Any]], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()
    ) -> Reply:
        raise UserFault("a recording has no model to ask")


def request_of(messages: Sequence[Mapping[str, Any]], sampling: ChatSampling) -> dict[str, Any]:
    """What is hashed of a request, in parts, so that a miss can say which of them changed; texts are kept as hashes."""
    system = [dict(m) for m in messages if m["role"] == "system"]
    talk = [dict(m) for m in messages if m["role"] != "system"]
    return dict(zip(_PARTS, (digest(system), digest(talk), canonical(asdict(sampling))), strict=True))


def _calls(said: Mapping[str, Any]) -> tuple[RawCall, ...]:
    return tuple(RawCall(**call) for call in said.get("calls", ()))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
