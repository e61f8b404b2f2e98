"""Durable files: append whole or not at all, replace whole or not at all.

Invariant: when a function here returns, its bytes are on disk; when it raises, the file holds what it held before (or,
if even the roll-back failed, an `AppendFile` refuses further writes until it is reopened and repaired).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from muarl_cli.errors import ExitCode, MuarlError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_CHUNK = 1 << 20


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however often the system takes fewer or is interrupted; raises OSError."""
    view = memoryview(data)
    while view:
        try:
            written = os.write(fd, view)
        except InterruptedError:
            continue
        view = view[written:]


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable; raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Flush the content of a file that somebody else wrote; raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: written aside, flushed, renamed. Raises `MuarlError`, the old file intact."""

    def write(fd: int) -> None:
        write_all(fd, data)

    replace_with(path, write, len(data))


def replace_with(path: Path, write: Callable[[int], None], size: int) -> None:
    """As `replace_file`, with a callback that writes to a descriptor; `size` bytes are named if the disk is full."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            write(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(aside, path)
        fsync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise disk_error(error, path, size) from error


def disk_error(error: OSError, path: Path, size: int) -> MuarlError:
    """An OSError in words: which file, how many bytes were wanted, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    step = f"free at least {size} bytes on the volume of {path.parent}" if full else f"see to {path.parent}"
    return MuarlError(
        f"could not write {path.name}",
        where=str(path),
        why=f"{error.strerror or error} ({size} bytes wanted); what was written before is intact",
        next_step=f"{step}, then run the same command again: it resumes",
        code=ExitCode.TEMPORARY,
    )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            state.update(piece)
    return state.hexdigest()


def numbered(path: Path, label: str) -> Path:
    """The first free `<path>.<label>-N`."""
    n = 1
    while (candidate := path.with_name(f"{path.name}.{label}-{n}")).exists():
        n += 1
    return candidate


class AppendFile:
    """A file that only grows; `append` returns when the bytes are on disk and leaves no trace when it raises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        self.size = os.fstat(self._fd).st_size
        self.broken = False
        """a roll-back failed: the end of the file is unknown until it is opened again"""
        if new:
            fsync_folder(path.parent)

    def append(self, data: bytes) -> int:
        """Write `data` at the end and flush it; returns its offset. Raises `MuarlError` (exit code 75)."""
        if self.broken:
            raise MuarlError(
                f"{self.path.name} is in an unknown state after a failed write",
                where=str(self.path),
                next_step="run the same command again: the file is repaired when it is opened",
                code=ExitCode.TEMPORARY,
            )
        start = self.size
        try:
            write_all(self._fd, data)
            os.fsync(self._fd)
        except OSError as error:
            self._roll_back(start)
            raise disk_error(error, self.path, len(data)) from error
        except BaseException:  # an interrupt between write and flush: nothing of it may stay
            self._roll_back(start)
            raise
        self.size = start + len(data)
        return start

    def _roll_back(self, size: int) -> None:
        self.broken = True
        with suppress(OSError):
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
            self.broken = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Locked:
    """What is open under the lock of its folder, a context manager: leaving it closes it, which gives the lock back."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        """file descriptor that holds the lock; -1 once it is given back"""

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def set_aside_tail(path: Path, keep: int, label: str = "torn") -> tuple[Path, int] | None:
    """Move the bytes of `path` after `keep` into a new `<path>.<label>-N`, then cut them off; None where none are.

    The copy is on disk before the cut, so that no byte is lost. Returns the copy and its size; raises `MuarlError`.
    """
    size = path.stat().st_size
    if size <= keep:
        return None
    copy = numbered(path, label)

    def write(out: int) -> None:
        with path.open("rb") as file:
            file.seek(keep)
            while piece := file.read(_CHUNK):
                write_all(out, piece)

    replace_with(copy, write, size - keep)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, keep)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise disk_error(error, path, 0) from error
    return copy, size - keep
