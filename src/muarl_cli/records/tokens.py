"""Token rows in side files: `tokens-00000.safetensors`, a shard a batch, keyed `<episode>/<row>/ids|owners|logprobs`.

Invariant: a shard appears whole or not at all, and it is on disk before the lines of its episodes are. Rows without a
line (a crash came between) are orphans: they do no harm, and merging drops them. Shards of like size are merged sixteen
at a time, so that a run of any length leaves a few dozen files.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.codec import RowsRef
from muarl_cli.records.files import replace_file
from muarl_cli.records.safetensors_file import read_header

_NAME = re.compile(r"tokens-(\d{5,})\.safetensors")
_PARTS = {"ids": ("<i4", "I32"), "owners": ("|u1", "U8"), "logprobs": ("<f4", "F32")}
_MERGE = 16
_TIER_BYTES = 64 << 10
_NEVER_MERGED = 64 << 20
_CACHED_HEADERS = 4


def arrays(row: TokenRow) -> dict[str, Any]:
    """A row as numpy arrays of length T: int32 ids, uint8 owners, float32 log-probabilities. Raises `MuarlError`."""
    import numpy as np

    if not len(row.ids) == len(row.owners) == len(row.logprobs):
        raise MuarlError("a token row has arrays of different lengths", code=ExitCode.INTERNAL)
    if not all(map(math.isfinite, row.logprobs)):
        raise MuarlError("a token row has a log-probability that is not finite", code=ExitCode.INTERNAL)
    values = {"ids": row.ids, "owners": row.owners, "logprobs": row.logprobs}
    return {part: np.array(values[part], dtype=_PARTS[part][0]) for part in _PARTS}


def reference(rows: Sequence[TokenRow]) -> RowsRef | None:
    """What an episode's line says of its rows; None where it has none."""
    return _reference([arrays(row) for row in rows])


def _reference(rows: Sequence[Mapping[str, Any]]) -> RowsRef | None:
    if not rows:
        return None
    state = hashlib.sha256()
    for row in rows:
        state.update(struct.pack("<q", len(row["ids"])))
        for part in _PARTS:
            state.update(row[part].tobytes())
    return RowsRef(len(rows), state.hexdigest())


class TokenShards:
    """The token rows of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        self._shards: dict[str, int] = {}
        """name to size, oldest first"""
        self._shards_of: dict[str, tuple[str, ...]] = {}
        """episode id to the shards that hold rows of it, oldest first"""
        self._headers: dict[str, tuple[dict[str, Any], int]] = {}
        found = [(int(m.group(1)), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
        self._next = max((number for number, _ in found), default=-1) + 1
        for _, path in sorted(found):
            try:
                header, _ = read_header(path)
            except MuarlError:
                self.damaged.append(path.name)
                continue
            self._index(path.name, header, path.stat().st_size)

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self._shards_of

    def add(self, batch: Mapping[str, Sequence[TokenRow]]) -> str:
        """Write the rows of a batch as one shard, flushed; returns its name. Raises `MuarlError` and leaves nothing."""
        from safetensors.numpy import save

        tensors = {
            f"{episode_id}/{index}/{part}": array
            for episode_id, rows in batch.items()
            for index, row in enumerate(rows)
            for part, array in arrays(row).items()
        }
        return self._write(save(tensors))

    def discard(self, name: str) -> None:
        """Drop a shard whose lines could not be written; what is left of it would only be an orphan."""
        with suppress(OSError):
            (self.folder / name).unlink()
        self._forget(name)

    def of(self, episode_id: str, expected: RowsRef) -> tuple[TokenRow, ...]:
        """The rows of an episode that its line was written with, newest shard first. Raises `MuarlError` (BAD_DATA)."""
        shards = self._shards_of.get(episode_id, ())
        for name in reversed(shards):
            rows = self._read(name, episode_id)
            if _reference(rows) == expected:
                return tuple(TokenRow(*(tuple(row[part].tolist()) for part in _PARTS)) for row in rows)
        raise MuarlError(
            f"the token rows of episode {episode_id} are missing or are not those it was written with",
            where=", ".join(str(self.folder / name) for name in shards) or str(self.folder),
            next_step="move the damaged token file away and run the stage again: its episodes are then owed again",
            code=ExitCode.BAD_DATA,
        )

    def compact(self, expected: Callable[[str], RowsRef | None]) -> int:
        """Merge shards of like size once there are sixteen of them, keeping the rows that lines refer to; returns how
        many shards were merged. `expected(id)` is what the line of an id says. Raises `MuarlError` or OSError, always
        with every row still in some shard."""
        merged = 0
        while tier := self._full_tier():
            kept: dict[str, Any] = {}
            for name in tier:
                for episode_id in self._ids(name):
                    wanted, rows = expected(episode_id), self._read(name, episode_id)
                    if wanted and _reference(rows) == wanted:
                        kept |= {f"{episode_id}/{i}/{part}": row[part] for i, row in enumerate(rows) for part in _PARTS}
            if kept:
                from safetensors.numpy import save

                self._write(save(kept))
            for name in tier:
                (self.folder / name).unlink()
                self._forget(name)
            merged += len(tier)
        return merged

    def _full_tier(self) -> list[str]:
        tiers: dict[int, list[str]] = {}
        for name, size in self._shards.items():
            if size <= _NEVER_MERGED:
                tier = math.ceil(math.log(max(1.0, size / _TIER_BYTES), _MERGE))
                tiers.setdefault(tier, []).append(name)
        return next((names[:_MERGE] for _, names in sorted(tiers.items()) if len(names) >= _MERGE), [])

    def _write(self, data: bytes) -> str:
        name = f"tokens-{self._next:05d}.safetensors"
        replace_file(self.folder / name, data)
        self._next += 1
        header, _ = read_header(self.folder / name)
        self._index(name, header, len(data))
        return name

    def _index(self, name: str, header: dict[str, Any], size: int) -> None:
        self._shards[name] = size
        for episode_id in {key.rsplit("/", 2)[0] for key in header}:
            self._shards_of[episode_id] = (*self._shards_of.get(episode_id, ()), name)

    def _ids(self, name: str) -> list[str]:
        return sorted({key.rsplit("/", 2)[0] for key in self._header(name)[0]})

    def _forget(self, name: str) -> None:
        self._shards.pop(name, None)
        self._headers.pop(name, None)
        for episode_id, shards in list(self._shards_of.items()):
            if name in shards:
                left = tuple(shard for shard in shards if shard != name)
                if left:
                    self._shards_of[episode_id] = left
                else:
                    del self._shards_of[episode_id]

    def _header(self, name: str) -> tuple[dict[str, Any], int]:
        if name not in self._headers:
            while len(self._headers) >= _CACHED_HEADERS:
                self._headers.pop(next(iter(self._headers)))
            self._headers[name] = read_header(self.folder / name)
        return self._headers[name]

    def _read(self, name: str, episode_id: str) -> list[dict[str, Any]]:
        """The rows of an id in one shard, as arrays; [] where they cannot be read."""
        import numpy as np

        header, start = self._header(name)
        rows: list[dict[str, Any]] = []
        fd = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while f"{episode_id}/{len(rows)}/ids" in header:
                row = {}
                for part, (kind, _) in _PARTS.items():
                    low, high = header[f"{episode_id}/{len(rows)}/{part}"]["data_offsets"]
                    row[part] = np.frombuffer(os.pread(fd, high - low, start + low), dtype=kind)
                rows.append(row)
        except (KeyError, ValueError):
            return []
        finally:
            os.close(fd)
        return rows
