"""The fingerprints of every task set that demonstrations must not hold: ours for testing, and those of the benchmarks.

To read all tasks of a benchmark takes its packages up to half a minute, to read its fingerprint a moment; so it is made
once and kept in the user's cache. Invariant: a kept fingerprint is of the benchmark version that is installed and of
the code that hashes tasks today; a benchmark that is installed and has none is named, never passed over.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from muarl_cli import benchmarks, hashing
from muarl_cli.benchmarks.provider import Provider, home, providers
from muarl_cli.errors import MuarlError
from muarl_cli.records.files import replace_file
from muarl_cli.records.lineage import TaskMark
from muarl_cli.scoring import wording
from muarl_cli.verification import overlap
from muarl_cli.verification.overlap import Fingerprint, fingerprint
from muarl_cli.worlds import scenario
from muarl_cli.worlds.catalog import SOURCES, task_sets
from muarl_cli.worlds.domain import BUILTIN

Fingerprints = dict[str, Fingerprint]


def fingerprints(read: bool) -> tuple[Fingerprints, tuple[str, ...]]:
    """(fingerprint by name of the task set, installed benchmarks without one). With `read`, the missing ones are made
    and kept."""
    found = {name: fingerprint(own, tasks) for name, own, tasks in task_sets("builtin", BUILTIN, ("test", "dev"))}
    missing = []
    for provider in providers().values():
        if provider.name not in SOURCES or not provider.status().ready:
            continue
        place = _place(provider)
        kept = _kept(place)
        if kept is None and read:
            kept = {name: fingerprint(own, tasks) for name, own, tasks in task_sets(provider.name, provider.domains)}
            _keep(place, kept)
        if kept is None:
            missing.append(provider.name)
        found |= kept or {}
    return found, tuple(missing)


def _place(provider: Provider) -> Path:
    """The file of a benchmark: another version of it, or of the code that hashes, has another one."""
    known = hashlib.sha256(repr(provider.status().present).encode())
    own = Path(str(benchmarks.__file__)).parent.glob("*.py")
    for path in sorted([*own, *(Path(str(module.__file__)) for module in (hashing, wording, overlap, scenario))]):
        known.update(path.read_bytes())
    return home() / "fingerprints" / f"{provider.name}-{known.hexdigest()[:16]}.json"


def _keep(place: Path, sets: Mapping[str, Fingerprint]) -> None:
    rows = {
        name: {
            "tasks": [astuple(mark) for mark in own.tasks],
            "rare": b64encode(own.rare.astype("<u8").tobytes()).decode(),
            "counts": b64encode(own.counts.astype("u1").tobytes()).decode(),
        }
        for name, own in sets.items()
    }
    with suppress(OSError, MuarlError):  # a cache that cannot be written costs time, not the card
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.glob(f"{place.name.partition('-')[0]}-*.json"):
            old.unlink(missing_ok=True)
        replace_file(place, json.dumps(rows).encode())


def _kept(place: Path) -> Fingerprints | None:
    """What was kept; None where nothing was, or it cannot be read."""
    try:
        rows = json.loads(place.read_bytes())
        return {name: _fingerprint(row) for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _fingerprint(row: Mapping[str, Any]) -> Fingerprint:
    import numpy as np

    return Fingerprint(
        tuple(TaskMark(*mark) for mark in row["tasks"]),
        np.frombuffer(b64decode(row["rare"]), "<u8").astype(np.uint64),
        np.frombuffer(b64decode(row["counts"]), "u1").astype(np.int64),
    )
