"""The episode log of a run: `episodes.jsonl` and its token shards.

Invariant: when `append` returns, the episode is on disk, its token rows before its line; when it raises, nothing of it
counts. Opening repairs: what follows the last intact line is set aside in `episodes.jsonl.torn-N`, never deleted, and
its work is owed again. One writer at a time: the folder is locked while a log is open.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical_json
from muarl_cli.records import codec
from muarl_cli.records.files import FOLDER_MODE, AppendFile, Locked, numbered, replace_with, set_aside_tail, write_all
from muarl_cli.records.scan import LOG_NAME, Damage, Entry, Index, iter_lines, read_lines, scan
from muarl_cli.records.tokens import TokenShards, reference
from muarl_cli.records.verdicts import read_verdicts
from muarl_cli.records.where import Where, parse_where

__all__ = ["LOG_NAME", "Damage", "EpisodeLog", "Report", "Where", "artifact_hash", "iter_episodes", "parse_where"]


@dataclass(frozen=True)
class Report:
    """What opening a log found and mended."""

    kept: int
    """ids with a record"""
    torn_bytes: int = 0
    torn_file: str = ""
    damaged: int = 0
    """lines in the middle that are no episodes; left where they are"""
    damage: tuple[Damage, ...] = ()
    without_tokens: int = 0
    """episodes set aside because their token rows are gone"""
    damaged_shards: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a person should know, a line each; empty when all is well."""
        said = []
        if self.torn_bytes:
            said.append(f"set aside {self.torn_bytes} bytes of an unfinished record in {self.torn_file}")
        if self.damaged:
            first = self.damage[0]
            said.append(f"{self.damaged} damaged lines are owed again (first at byte {first.offset}: {first.why})")
        if self.without_tokens:
            said.append(f"{self.without_tokens} episodes have lost their token rows; they are owed again")
        if self.damaged_shards:
            said.append(f"damaged token files left alone: {', '.join(self.damaged_shards)}")
        return said


class EpisodeLog(Locked):
    """The log of one folder, open for appending. Use as a context manager, or call `close`."""

    def __init__(
        self, folder: Path, lock: int, file: AppendFile, index: Index, shards: TokenShards, report: Report
    ) -> None:
        self.folder, self.report = folder, report
        super().__init__(lock)
        self._file, self._index, self._shards = file, index, shards
        self._guard = threading.Lock()
        self._latest: dict[str, Episode] = {}
        """the batch written last, as it would be read: a stage asks for what it wrote"""

    @classmethod
    def open(cls, folder: Path, need_tokens: bool = True) -> EpisodeLog:
        """Open (and repair) the log of `folder`. With `need_tokens`, an episode whose rows are gone is owed again.

        Raises `MuarlError`: BUSY where another writer holds it, BAD_DATA for an unknown format version.
        """
        folder = Path(folder)
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            return cls._repaired(folder, lock, need_tokens)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _repaired(cls, folder: Path, lock: int, need_tokens: bool) -> EpisodeLog:
        for leftover in (*folder.glob(f".{LOG_NAME}*.tmp-*"), *folder.glob(".tokens-*.tmp-*")):
            leftover.unlink(missing_ok=True)
        path, torn, lost = folder / LOG_NAME, None, 0
        shards = TokenShards(folder)
        index = _scan(path)
        if path.exists():
            torn = set_aside_tail(path, index.good_end)
        if need_tokens and (bare := [entry for entry in index.entries.values() if not _has_rows(entry, shards)]):
            lost = len(bare)
            _drop_lines(path, {entry.offset for entry in bare})
        if torn or lost:
            index = _scan(path)
        report = Report(
            kept=len(index.entries),
            torn_bytes=torn[1] if torn else 0,
            torn_file=torn[0].name if torn else "",
            damaged=index.damaged,
            damage=tuple(index.damage),
            without_tokens=lost,
            damaged_shards=tuple(shards.damaged),
        )
        return cls(folder, lock, AppendFile(path), index, shards, report)

    def append(self, episode: Episode) -> bool:
        """Write one episode; returns once it is on disk. False (and nothing written) where its id is already done."""
        return self.append_many([episode]) == 1

    def append_many(self, episodes: Iterable[Episode]) -> int:
        """Write a batch with one flush and one token shard; all of it or none. Returns how many were new.

        A valid record of an id is final; an invalid one may be followed by another attempt. Raises `MuarlError`
        (TEMPORARY) when the disk refuses, with the log as it was.
        """
        with self._guard:
            batch: dict[str, Episode] = {}
            for episode in episodes:
                if not self.is_done(episode.episode_id):
                    batch.setdefault(episode.episode_id, episode)
            if not batch:
                return 0
            rows = {key: episode.rows for key, episode in batch.items() if episode.rows}
            sealed = [codec.seal(episode, reference(episode.rows)) for episode in batch.values()]
            lines = [line for line, _ in sealed]
            shard = self._shards.add(rows) if rows else ""
            try:
                offset = self._file.append(b"".join(lines))
            except BaseException:
                if shard and not self._file.broken:
                    self._shards.discard(shard)
                raise
            for line in lines:
                self._index.put(Entry(offset, len(line), codec.head(line)))
                offset += len(line)
            self._latest = {episode.episode_id: episode for _, episode in sealed}
            if shard:
                with suppress(MuarlError, OSError):  # merging saves files, never episodes: those are safe already
                    self._shards.compact(self._expected)
            return len(batch)

    def done_ids(self, valid_only: bool = True) -> set[str]:
        """Ids whose work is done; an invalid episode is owed again unless `valid_only` is false."""
        with self._guard:  # another thread may be writing
            return {key for key, entry in self._index.entries.items() if entry.head.valid or not valid_only}

    def is_done(self, episode_id: str) -> bool:
        """Whether this work is done: its episode is there, and counts."""
        entry = self._index.entries.get(episode_id)
        return entry is not None and entry.head.valid

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self._index.entries

    def __len__(self) -> int:
        return len(self._index.entries)

    def read(self, episode_id: str, rows: bool = False) -> Episode:
        """One episode, with its token rows if asked for. Raises `MuarlError` where the id is unknown."""
        entry = self._entry(episode_id)
        episode = self._latest.get(episode_id)
        if episode is None:
            with (self.folder / LOG_NAME).open("rb") as file:
                file.seek(entry.offset)
                episode = codec.decode(file.read(entry.size))
        return replace(episode, rows=self.tokens_of(episode_id)) if rows else episode

    def tokens_of(self, episode_id: str) -> tuple[TokenRow, ...]:
        """The token rows of an episode; empty where it was written without any. Raises `MuarlError` (BAD_DATA)."""
        expected = self._entry(episode_id).head.tokens
        if not expected:
            return ()
        with self._guard:  # another thread may be merging shards
            return self._shards.of(episode_id, expected)

    def episodes(self, where: Where | None = None, rows: bool = False) -> Iterator[Episode]:
        """The counting episodes in the order they were written, one at a time."""
        return iter_episodes(self.folder, where, rows=rows)

    def close(self) -> None:
        """Release the file and the lock; nothing is pending, for nothing was ever acknowledged unwritten."""
        self._file.close()
        super().close()

    def _expected(self, episode_id: str) -> codec.RowsRef | None:
        entry = self._index.entries.get(episode_id)
        return entry.head.tokens if entry else None

    def _entry(self, episode_id: str) -> Entry:
        entry = self._index.entries.get(episode_id)
        if entry is None:
            raise MuarlError(f"no episode {episode_id}", where=str(self.folder / LOG_NAME), code=ExitCode.MISSING_INPUT)
        return entry


def iter_episodes(
    path: Path | str,
    where: Where | Callable[[Episode], bool] | None = None,
    on_damage: Callable[[Damage], None] | None = None,
    rows: bool = False,
) -> Iterator[Episode]:
    """The counting episodes of a log (a folder, a file, a pipe, or `-`), in file order, one in memory at a time.

    Damage goes to `on_damage` (by default a line on standard error) and is passed over. `rows` attaches token rows and
    needs the folder. Raises `MuarlError` where there is no log, or a format is unknown.
    """
    place = None if str(path) == "-" else Path(path)
    folder = place if place is None or place.is_dir() else place.parent
    judged = isinstance(where, Where) and where.needs_verdict
    if folder is None and (judged or rows):
        raise MuarlError("standard input has episodes only: no verdicts, no token rows", where="-")
    verdicts = read_verdicts(folder) if judged and folder else {}
    shards = TokenShards(folder) if rows and folder else None
    report = on_damage or _say
    for head, line in iter_lines(path, report):
        try:
            episode = codec.decode(line)
        except codec.BadLine as bad:  # a checksum that is right over content that is not: written by something else
            report(Damage(-1, len(line), f"{head.episode_id}: {bad.why}"))
            continue
        if isinstance(where, Where):
            if not where(episode, verdicts.get(episode.episode_id)):
                continue
        elif where is not None and not where(episode):
            continue
        if shards is not None and head.tokens:
            episode = replace(episode, rows=shards.of(head.episode_id, head.tokens))
        yield episode


def artifact_hash(path: Path | str) -> str:
    """SHA-256 over `<id> <SHA-256 of the canonical episode without volatile>` lines, sorted by id.

    Token rows count through the digest in their episode's line. Two runs of the same work have the same hash, whatever
    the order in which episodes finished and however often they were interrupted.
    """
    parts = []
    for head, line in iter_lines(path):
        content = canonical_json(codec.without_volatile(line)).encode()
        parts.append(f"{head.episode_id} {hashlib.sha256(content).hexdigest()}\n")
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def _say(damage: Damage) -> None:
    print(f"episode log: {damage.size} bytes at {damage.offset} passed over: {damage.why}", file=sys.stderr)


def _scan(path: Path) -> Index:
    if not path.exists():
        return Index()
    with path.open("rb") as file:
        return scan(file)


def _has_rows(entry: Entry, shards: TokenShards) -> bool:
    return entry.head.tokens is None or entry.head.episode_id in shards


def _drop_lines(path: Path, offsets: set[int]) -> None:
    """Rewrite the log without some lines; these go to a `torn-N` file first."""
    size = path.stat().st_size

    def write(fd: int, dropped: bool) -> None:
        with path.open("rb") as file:
            for offset, _, line in read_lines(file):
                if (offset in offsets) is dropped:
                    write_all(fd, line)

    replace_with(numbered(path, "torn"), lambda fd: write(fd, True), size)
    replace_with(path, lambda fd: write(fd, False), size)


def _lock(folder: Path) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise MuarlError(
            "the episode log is open for writing elsewhere",
            where=str(folder),
            next_step="wait for the other process, or write to another folder",
            code=ExitCode.BUSY,
        ) from error
    return fd
