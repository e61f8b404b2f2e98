"""Tasks beside a log: `tasks.jsonl`, for logs whose tasks no installed source holds (imported trajectories).

Invariant: a task read back has the hash it was written with, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical
from muarl_cli.records import strict_json
from muarl_cli.records.files import replace_file
from muarl_cli.worlds.scenario import GoldCall, Task

NAME = "tasks.jsonl"
_MAX_LINE = 4 << 20


def write_tasks(folder: Path, tasks: Iterable[Task]) -> None:
    """Replace the task file of a folder."""
    rows = ({"task_hash": task.task_hash, **asdict(task)} for task in tasks)
    replace_file(folder / NAME, "".join(strict_json.dumps(canonical(row)) + "\n" for row in rows).encode("ascii"))


def read_tasks(folder: Path) -> dict[str, Task]:
    """Task hash to task; empty where the folder has no task file. Raises `MuarlError` (BAD_DATA) naming the line."""
    path = folder / NAME
    found: dict[str, Task] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else (), 1):
        if not line:
            continue
        try:
            row = strict_json.loads(line, _MAX_LINE)
            known = row.pop("task_hash")
            task = _task(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, number, str(error)[:200]) from error
        if task.task_hash != known:
            raise _damaged(path, number, f"task {task.id} does not have the hash it was written with")
        found[known] = task
    return found


def _task(row: dict[str, Any]) -> Task:
    for name in ("gold", "gold_writes"):
        row[name] = tuple(GoldCall(**call) for call in row[name])
    for name in ("communicate", "bases"):
        row[name] = tuple(row[name])
    return Task(**row)


def _damaged(path: Path, number: int, why: str) -> MuarlError:
    return MuarlError(
        "a task cannot be read",
        where=f"{path}:{number}",
        why=why,
        next_step="import the trajectories again, into a new folder",
        code=ExitCode.BAD_DATA,
    )
