"""The folder of one run: who may write, which settings it stands for, its metrics and its summary.

Invariant: one writer at a time; a folder belongs to one stage with one set of settings, and the run id is derived from
those, so that the same command always means the same run, the same episode ids, and continues where it stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical, canonical_json, digest
from muarl_cli.records import strict_json
from muarl_cli.records.files import FOLDER_MODE, AppendFile, Locked, disk_error, replace_file, set_aside_tail

LOCK, SETTINGS, METRICS, SUMMARY = "run.lock", "settings.yaml", "metrics.jsonl", "summary.json"
_MAX_ROW = 4 << 20
_HEADER = re.compile(r"# muarl ([\w-]+), run ([0-9a-f]+)\n")


def settings_hash(settings: Mapping[str, Any], free: Collection[str]) -> str:
    """Hash of what decides the results: the settings without the `free` keys (dotted where nested)."""
    return digest(_decisive(settings, free), 16)


def run_id(stage: str, settings: Mapping[str, Any], free: Collection[str]) -> str:
    """The id of a run: the same stage and settings always have the same."""
    return digest([stage, settings_hash(settings, free)], 16)


def settings_diff(before: Mapping[str, Any], after: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """One line a changed setting: `group_size: 4 -> 8`, sorted; empty where none but free ones changed."""
    old, new = _decisive(before, free), _decisive(after, free)
    lines = []
    for key in sorted({*old, *new}):
        was, now = (canonical_json(side[key]) if key in side else "(absent)" for side in (old, new))
        if was != now:
            lines.append(f"{key}: {was} -> {now}")
    return lines


def kept_owed(planned: Iterable[str], done: Collection[str]) -> tuple[list[str], str]:
    """The planned ids that are still owed, in order, and the sentence for a person: "kept 3, owed 5"."""
    ids = list(planned)
    owed = [key for key in ids if key not in done]
    return owed, f"kept {len(ids) - len(owed)}, owed {len(owed)}"


class RunFolder(Locked):
    """An open run folder; use as a context manager, or call `close`."""

    def __init__(self, path: Path, stage: str, run: str, hash_: str, lock: int, resumed: bool) -> None:
        self.path, self.stage, self.run_id, self.settings_hash = path, stage, run, hash_
        self.resumed = resumed
        """whether the folder held this run already"""
        super().__init__(lock)
        self._metrics: AppendFile | None = None

    @classmethod
    def open(cls, path: Path, stage: str, settings: Mapping[str, Any], *, free: Collection[str]) -> RunFolder:
        """Create the folder, or open it again for the same work.

        `settings` are the resolved ones (JSON values); those named in `free` (the output path, how many in flight, ...)
        do not decide the results and may change. Raises `MuarlError`: BUSY where another process holds the folder,
        CONFIG with a diff where it holds a run of other settings (one that has written nothing yet is replaced), USAGE
        where it holds something else.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise MuarlError(
                "the output folder is a file",
                where=str(path),
                next_step="name a folder with --out",
                code=ExitCode.USAGE,
            )
        try:
            path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(error, path / LOCK, 0) from error
        try:
            _take_lock(lock, path)
            resumed = _check_settings(path, stage, settings, free)
            run = run_id(stage, settings, free)
            if not resumed:
                _write_settings(path, stage, run, settings)
            return cls(path, stage, run, settings_hash(settings, free), lock, resumed)
        except BaseException:
            os.close(lock)
            raise

    def log_metrics(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one line for `step`, flushed. A figure that is not finite becomes null and is named in `not_finite`.

        Raises `MuarlError`.
        """
        if self._metrics is None:
            self.keep_metrics_until(None)
            self._metrics = AppendFile(self.path / METRICS)
        clean, odd = _finite(dict(row))
        line = {"step": step, **clean} | ({"not_finite": odd} if odd else {})
        self._metrics.append((strict_json.dumps(canonical(line)) + "\n").encode("ascii"))

    def metrics(self) -> list[dict[str, Any]]:
        """All intact rows, in order."""
        return [json.loads(line) for line in _intact_rows(self.path / METRICS)[0]]

    def keep_metrics_until(self, step: int | None) -> int:
        """Drop the rows after `step`, which the resumed run will write again; returns how many. With None, only mend a
        torn tail (set aside, as in the log). Raises `MuarlError`."""
        path = self.path / METRICS
        if not path.exists():
            return 0
        rows, end = _intact_rows(path)
        set_aside_tail(path, end)
        kept = [line for line in rows if step is None or json.loads(line)["step"] <= step]
        if len(kept) < len(rows):
            if self._metrics is not None:
                self._metrics.close()
            self._metrics = None
            replace_file(path, b"".join(kept))
        return len(rows) - len(kept)

    def finish(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write `summary.json` with stage and run id; its presence says that the run is complete. Returns what was
        written; raises `MuarlError`, also (INTERNAL) for a figure that is not finite."""
        whole = {"stage": self.stage, "run_id": self.run_id, **summary}
        try:
            text = json.dumps(canonical(whole), indent=2, allow_nan=False, ensure_ascii=True)
        except (TypeError, ValueError) as error:
            raise MuarlError(f"the summary cannot be written: {error}", code=ExitCode.INTERNAL) from error
        replace_file(self.path / SUMMARY, (text + "\n").encode("ascii"))
        return whole

    @property
    def summary(self) -> dict[str, Any] | None:
        """What a finished run said, or None."""
        try:
            value: dict[str, Any] = json.loads((self.path / SUMMARY).read_bytes())
            return value
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Release the folder."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        super().close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The intact metric rows of a run folder, without taking its lock: for looking at a run while it is written."""
    return [json.loads(line) for line in _intact_rows(path / METRICS)[0]]


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings a run folder stands for, or None where it has none. Raises `MuarlError` (BAD_DATA)."""
    import yaml

    file = path / SETTINGS
    if not file.exists():
        return None
    try:
        value = yaml.safe_load(file.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a mapping")
        return value
    except (yaml.YAMLError, ValueError) as error:
        raise MuarlError(
            "the settings of a run cannot be read",
            where=str(file),
            why=str(error)[:200],
            next_step="use another --out",
            code=ExitCode.BAD_DATA,
        ) from error


def _write_settings(path: Path, stage: str, run: str, settings: Mapping[str, Any]) -> None:
    import yaml

    body = yaml.safe_dump(_plain(settings), sort_keys=True, allow_unicode=False)
    replace_file(path / SETTINGS, f"# muarl {stage}, run {run}\n{body}".encode())


def _check_settings(path: Path, stage: str, settings: Mapping[str, Any], free: Collection[str]) -> bool:
    before = read_settings(path)
    if before is None:
        if others := [p.name for p in path.iterdir() if p.name != LOCK and not p.name.startswith(".")]:
            raise MuarlError(
                f"{path} is not empty and holds no run",
                why=f"it holds {', '.join(sorted(others)[:3])}",
                next_step="give --out a new folder",
                code=ExitCode.USAGE,
            )
        return False
    found = _HEADER.match((path / SETTINGS).read_text("utf-8"))
    if found and found.group(1) != stage:
        raise MuarlError(
            f"{path} holds a run of {found.group(1)}, not of {stage}",
            next_step="give --out a new folder",
            code=ExitCode.CONFIG,
        )
    if diff := settings_diff(before, settings, free):
        if _untouched(path):
            return False
        raise MuarlError(
            "the folder holds a run with other settings",
            where=str(path),
            why="; ".join(diff[:20]),
            next_step="give --out a new folder, or set these back to resume",
            code=ExitCode.CONFIG,
        )
    return True


def _untouched(path: Path) -> bool:
    """Whether a run stopped before it wrote anything, as one with a misspelt task set does: then its settings bind
    nobody, and the mended command may have the folder."""
    return all(
        entry.name in (LOCK, SETTINGS) or (entry.is_file() and not entry.stat().st_size) for entry in path.iterdir()
    )


def _take_lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        try:
            holder = json.loads(os.pread(lock, 4096, 0))
            who = f"process {holder['pid']} on {holder['host']}"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        raise MuarlError(
            f"{who} is writing to this run folder",
            where=str(path),
            next_step="wait until it is done or stop it, or give another --out",
            code=ExitCode.BUSY,
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def _intact_rows(path: Path) -> tuple[list[bytes], int]:
    """The lines up to the first that is no row of metrics, and the offset where they end."""
    rows: list[bytes] = []
    end = 0
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                row = strict_json.loads(line, _MAX_ROW)
                if not line.endswith(b"\n") or not isinstance(row, dict) or type(row.get("step")) is not int:
                    break
            except ValueError:
                break
            rows.append(line)
            end += len(line)
    return rows, end


def _finite(value: Any, path: str = "") -> tuple[Any, list[str]]:
    if isinstance(value, Mapping):
        parts = {str(key): _finite(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
        return {key: clean for key, (clean, _) in parts.items()}, [odd for _, names in parts.values() for odd in names]
    if isinstance(value, (list, tuple)):
        items = [_finite(item, f"{path}.{i}") for i, item in enumerate(value)]
        return [clean for clean, _ in items], [odd for _, names in items for odd in names]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None, [path]
    return value, []


def _decisive(settings: Mapping[str, Any], free: Collection[str], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{path}{key}"
        if name in free:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _decisive(value, free, f"{name}.")
        else:
            flat[name] = canonical(_plain(value))
    return flat


def _plain(value: Any) -> Any:
    """Settings as YAML and JSON know them: enums by value, paths as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return str(value)
    return value
