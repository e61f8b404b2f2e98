"""Reading an episode log: which record of an id counts, and what is damaged.

Invariant: reading never fails because of damage. A line that is torn or altered is reported and its work is owed again;
every other line is still read. Where an id occurs more than once, the first record of a *valid* episode counts, and
without one the last record. Lines end at a newline byte and nowhere else. Memory holds an index, never the episodes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import codec

LOG_NAME = "episodes.jsonl"
_LISTED = 100


@dataclass(frozen=True, slots=True)
class Damage:
    """One stretch of a log that is no episode."""

    offset: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the record of an id stands."""

    offset: int
    size: int
    head: codec.Head


@dataclass
class Index:
    """What a scan found. `good_end` is the offset after the last intact line."""

    entries: dict[str, Entry] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    """the first hundred; `damaged` counts all"""
    damaged: int = 0
    lines: int = 0
    good_end: int = 0

    def put(self, entry: Entry) -> None:
        """Count one more intact record."""
        self.lines += 1
        self.good_end = max(self.good_end, entry.offset + entry.size)
        known = self.entries.get(entry.head.episode_id)
        if known is None or not known.head.valid:
            self.entries[entry.head.episode_id] = entry

    def report(self, damage: Damage) -> None:
        self.damaged += 1
        if len(self.damage) < _LISTED:
            self.damage.append(damage)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(offset, size, bytes) of each line; of an over-long line only the beginning is kept, its size is true."""
    file.seek(0)
    offset = 0
    cap = codec.MAX_LINE_BYTES + 1
    while line := file.readline(cap):
        size = len(line)
        piece = line
        while len(piece) == cap and not piece.endswith(b"\n"):
            piece = file.readline(cap)
            size += len(piece)
        yield offset, size, line
        offset += size


def scan(file: BinaryIO) -> Index:
    """Index a log; raises `UnknownVersion` for intact lines of an unknown major version, and nothing for damage."""
    index = Index()
    for offset, size, line in read_lines(file):
        if line == b"\n":
            index.good_end = offset + size
            continue
        try:
            if size != len(line):
                raise codec.BadLine(f"longer than {codec.MAX_LINE_BYTES} bytes")
            if not line.endswith(b"\n"):
                raise codec.BadLine("the last line is cut off")
            index.put(Entry(offset, size, codec.head(line)))
        except codec.BadLine as bad:
            index.report(Damage(offset, size, bad.why))
    return index


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """A log as a seekable file: a folder that holds one, a file, a pipe, or `-` for standard input."""
    if str(path) == "-":
        yield from _spooled(sys.stdin.buffer)
        return
    place = Path(path)
    place = place / LOG_NAME if place.is_dir() else place
    try:
        file = place.open("rb")
    except OSError as error:
        raise MuarlError(
            f"no episode log at {path}",
            where=str(place),
            why=error.strerror or str(error),
            next_step=f"give a folder that holds {LOG_NAME}, such a file, or - for standard input",
            code=ExitCode.MISSING_INPUT,
        ) from error
    with file:
        if file.seekable():
            yield file
        else:
            yield from _spooled(file)


def _spooled(source: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        yield copy


def iter_lines(
    path: Path | str, on_damage: Callable[[Damage], None] | None = None
) -> Iterator[tuple[codec.Head, bytes]]:
    """The counting records of a log in file order, as lines; damage is reported to `on_damage` and passed over."""
    with opened(path) as file:
        index = scan(file)
        for damage in index.damage if on_damage else ():
            on_damage(damage)  # type: ignore[misc]
        for entry in sorted(index.entries.values(), key=lambda entry: entry.offset):
            file.seek(entry.offset)
            yield entry.head, file.read(entry.size)
