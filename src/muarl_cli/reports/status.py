"""How far a run is, from its files alone: while it runs, after it was killed, and when it is done.

Invariant: looking changes nothing and locks nothing. Who holds the folder is read from the kernel's list of locks, so a
process that was killed is never taken for one that works.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muarl_cli.records.run import LOCK, METRICS
from muarl_cli.records.scan import LOG_NAME, Damage, iter_lines
from muarl_cli.reports.run_view import FLOOR_STAGES, RunView

_FLOCK = re.compile(r"\d+: FLOCK\s+\S+\s+WRITE\s+(\S+)\s+([0-9a-f]+):([0-9a-f]+):(\d+)\s")


@dataclass(frozen=True)
class Status:
    """What is known of a run. `state`: finished, running, or stopped."""

    run: str
    stage: str
    run_id: str
    state: str
    holder: str
    """who is writing, or "" """
    episodes: int
    """of the run itself, without floors"""
    valid: int
    floor_episodes: int
    planned: int | None
    planned_steps: int | None
    """of a stage that learns"""
    faults: dict[str, int]
    reward: float | None
    """mean over valid episodes so far: a glance, not a score"""
    step: int | None
    last_step: dict[str, Any]
    spent_usd: float | None
    reserved_usd: float | None
    torn: int
    """stretches of the log that are no intact episode; the next start sets them aside"""
    last_write: float | None
    """Unix time of the last record"""
    next_step: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def status_of(run: RunView, plan: Mapping[str, Any] | None = None) -> Status:
    """The status of a run as it was read; `plan` is what its stage plans (`episodes`, `steps`), where known."""
    holder = holder_of(run.folder)
    state = "running" if holder else "finished" if run.summary is not None else "stopped"
    rewards = [float(e.reward) for e in run.own if e.valid and e.reward is not None]
    steps = _count(plan, "steps")
    last = dict(run.metrics[-1]) if run.metrics else {}
    return Status(
        run=str(run.folder),
        stage=run.stage,
        run_id=run.run_id,
        state=state,
        holder=holder,
        episodes=len(run.own),
        valid=sum(e.valid for e in run.own),
        floor_episodes=sum(e.stage in FLOOR_STAGES for e in run.episodes),
        planned=None if steps else _count(plan, "episodes"),
        planned_steps=steps,
        faults=dict(sorted(Counter(e.end.reason.value for e in run.own if not e.valid).items())),
        reward=sum(rewards) / len(rewards) if rewards else None,
        step=last.get("step"),
        last_step=last,
        spent_usd=run.spend[0] if run.spend else None,
        reserved_usd=run.spend[1] if run.spend else None,
        torn=len(run.damage),
        last_write=_last_write(run.folder),
        next_step="" if state != "stopped" else f"run the same command again to resume (--out {run.folder})",
    )


def _count(plan: Mapping[str, Any] | None, name: str) -> int | None:
    value = (plan or {}).get(name)
    return value if isinstance(value, int) and value > 0 else None


def holder_of(folder: Path) -> str:
    """The process that holds a run folder, as text; "" where nobody does."""
    path = folder / LOCK
    try:
        found = path.stat()
    except OSError:
        return ""
    try:
        locks = Path("/proc/locks").read_text("ascii")
    except (OSError, ValueError):
        return _alive(path)
    for line in locks.splitlines():
        match = _FLOCK.match(line)
        if match and int(match.group(4)) == found.st_ino:
            device = os.makedev(int(match.group(2), 16), int(match.group(3), 16))
            if device == found.st_dev or _alive(path):  # layered file systems report another device than stat does
                return _said(path)
    return ""


def _said(path: Path) -> str:
    """What the holder wrote about itself."""
    try:
        who = json.loads(path.read_bytes())
        return f"process {int(who['pid'])} on {str(who['host'])[:64]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _alive(path: Path) -> str:
    """Where locks cannot be read: whether the process that wrote the file is still there."""
    import socket

    try:
        who = json.loads(path.read_bytes())
        if who["host"] != socket.gethostname():
            return ""
        os.kill(int(who["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return _said(path)


def _last_write(folder: Path) -> float | None:
    times = [(folder / name).stat().st_mtime for name in (LOG_NAME, METRICS) if (folder / name).exists()]
    return max(times, default=None)


def count_episodes(folder: Path) -> tuple[int, int]:
    """Intact episodes of a log and how many of them are valid, without parsing them."""
    if not (folder / LOG_NAME).exists():
        return 0, 0
    heads = [head.valid for head, _ in iter_lines(folder, _ignore)]
    return len(heads), sum(heads)


def _ignore(damage: Damage) -> None:
    """Listing runs is not the place to complain about a log; `muarl status` is."""
