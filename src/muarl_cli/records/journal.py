"""A file of rows that only grows: judges' replies, people's decisions, replies of a teacher that were refused.

Invariant: a row that was added is on disk when `add` returns; a torn last line (a killed process) is set aside when the
file is opened for adding, and rows before it are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muarl_cli.hashing import canonical
from muarl_cli.records import strict_json
from muarl_cli.records.files import AppendFile, set_aside_tail

_MAX_LINE = 4 << 20


class Journal:
    """One such file; it is made with its first row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: AppendFile | None = None

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows, in order; a line that is none is passed over."""
        return [row for row, _ in _read(self.path)]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row and flush it. Raises `MuarlError` where the disk refuses."""
        if self._file is None:
            if self.path.exists():
                set_aside_tail(self.path, max((end for _, end in _read(self.path)), default=0))
            self._file = AppendFile(self.path)
        self._file.append((strict_json.dumps(canonical(dict(row))) + "\n").encode("ascii"))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(path: Path) -> list[tuple[dict[str, Any], int]]:
    """(row, end of its line) of the whole rows."""
    found: list[tuple[dict[str, Any], int]] = []
    end = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        end += len(line)
        if not line.endswith(b"\n"):
            break
        try:
            value = strict_json.loads(line, _MAX_LINE)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append((value, end))
    return found
