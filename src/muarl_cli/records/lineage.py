"""Lineage: what an artifact was made from, and every task that anything behind it was trained on.

Invariant: a lineage is self-contained. The sets of all ancestors are in it, each once and in full, so that a folder
that was moved or copied alone still knows what it was trained on. An empty gold-write hash never matches anything.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical_json
from muarl_cli.records import strict_json
from muarl_cli.records.files import replace_file

NAME = "lineage.json"
SCHEMA = "muarl.lineage/1.0"
_MAX_BYTES = 512 << 20
_PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "vllm", "deepspeed", "openai", "inspect-evals")


class TaskLike(Protocol):
    """What is needed of a task (see `worlds.scenario.Task`)."""

    @property
    def source(self) -> str: ...
    @property
    def scenario(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def task_hash(self) -> str: ...
    @property
    def gold_write_hash(self) -> str: ...


@dataclass(frozen=True, order=True)
class TaskMark:
    """A task as lineage knows it: two hashes, and where it came from."""

    task_hash: str
    gold_write_hash: str = ""
    source: str = ""
    scenario: str = ""
    split: str = ""

    @classmethod
    def of(cls, task: TaskLike) -> TaskMark:
        return cls(task.task_hash, task.gold_write_hash, task.source, task.scenario, task.split)


@dataclass(frozen=True)
class TrainedSet:
    """The tasks one artifact was trained on. `artifact` is the hash of the episodes, or the run id of an RL run."""

    artifact: str
    stage: str
    tasks: tuple[TaskMark, ...]

    @classmethod
    def of(cls, artifact: str, stage: str, tasks: Iterable[TaskMark]) -> TrainedSet:
        return cls(artifact, stage, tuple(sorted(set(tasks))))


@dataclass(frozen=True)
class Parent:
    """One direct input: its role (model, data, teacher), where it was, and its hash (an artifact's or a manifest's)."""

    role: str
    path: str
    hash: str


@dataclass(frozen=True)
class Overlap:
    """A task that something in the lineage was trained on, and by which of the two hashes."""

    task: TaskMark
    trained: TaskMark
    by: str

    @property
    def within_official_pair(self) -> bool:
        """Same source and scenario, other split: upstream's own train and test share it (warn, not refuse)."""
        same = (self.task.source, self.task.scenario) == (self.trained.source, self.trained.scenario)
        return same and bool(self.task.source) and self.task.split != self.trained.split

    @property
    def refuses(self) -> bool:
        """Whether an evaluation is refused for it."""
        return self.by == "task_hash" or not self.within_official_pair


@dataclass(frozen=True)
class Lineage:
    """What made an artifact. `tasks` are what its episodes are about; `trained` is what its weights have seen."""

    stage: str
    run_id: str
    settings_hash: str
    seeds: Mapping[str, int]
    parents: tuple[Parent, ...] = ()
    tasks: tuple[TaskMark, ...] = ()
    trained: tuple[TrainedSet, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        *,
        stage: str,
        run_id: str,
        settings_hash: str,
        seeds: Mapping[str, int],
        parents: Sequence[tuple[Parent, Lineage | None]] = (),
        tasks: Iterable[TaskMark] = (),
        trained_on: Sequence[TrainedSet] = (),
    ) -> Lineage:
        """A lineage that takes over every set of its parents. `tasks`: what this artifact's own episodes are about;
        `trained_on`: what this artifact itself trained on (none for rollouts and evaluations)."""
        sets: dict[tuple[str, str], set[TaskMark]] = {}
        inherited = [known for _, lineage in parents if lineage for known in lineage.trained]
        for known in (*inherited, *trained_on):
            sets.setdefault((known.artifact, known.stage), set()).update(known.tasks)
        return cls(
            stage=stage,
            run_id=run_id,
            settings_hash=settings_hash,
            seeds=dict(seeds),
            parents=tuple(parent for parent, _ in parents),
            tasks=tuple(sorted(set(tasks))),
            trained=tuple(TrainedSet.of(*key, sets[key]) for key in sorted(sets)),
            versions=versions(),
        )

    def trained_on(self) -> frozenset[TaskMark]:
        """Every task in the lineage that something was trained on."""
        return frozenset(mark for known in self.trained for mark in known.tasks)

    def marks_of(self, task_hashes: Iterable[str]) -> list[TaskMark]:
        """The marks of some of this artifact's tasks; a task it does not know gets a mark without gold-write hash."""
        known = {mark.task_hash: mark for mark in self.tasks}
        return [known.get(task_hash, TaskMark(task_hash)) for task_hash in sorted(set(task_hashes))]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> bytes:
        return (canonical_json(self.to_dict()) + "\n").encode("ascii")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Lineage:
        """Raises KeyError, TypeError or ValueError for anything that is no lineage of a known version."""
        if str(value["schema"]).split(".")[:2] != SCHEMA.split(".")[:2]:
            raise ValueError(f"its format is {value['schema']!r}, not {SCHEMA}")
        return cls(
            stage=value["stage"],
            run_id=value["run_id"],
            settings_hash=value["settings_hash"],
            seeds=dict(value["seeds"]),
            parents=tuple(Parent(p["role"], p["path"], p["hash"]) for p in value["parents"]),
            tasks=tuple(_mark(mark) for mark in value["tasks"]),
            trained=tuple(
                TrainedSet(s["artifact"], s["stage"], tuple(_mark(mark) for mark in s["tasks"]))
                for s in value["trained"]
            ),
            versions=dict(value["versions"]),
        )


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Write `lineage.json`, whole or not at all; raises `MuarlError`."""
    replace_file(folder / NAME, lineage.to_json())


def read_lineage(folder: Path) -> Lineage | None:
    """The lineage of a folder, or None where it carries none (a model from elsewhere). Raises `MuarlError` for a broken
    one: not knowing what was trained on is never taken for "nothing"."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return Lineage.from_dict(strict_json.loads(path.read_bytes(), _MAX_BYTES))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MuarlError(
            "a lineage cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}"[:200],
            next_step="restore it from where the folder was copied; without it, nobody knows what was trained on",
            code=ExitCode.BAD_DATA,
        ) from error


def trained_on(model_folder: Path) -> frozenset[TaskMark]:
    """Every task behind a checkpoint folder; empty for a model without lineage. Raises `MuarlError`."""
    lineage = read_lineage(model_folder)
    return lineage.trained_on() if lineage else frozenset()


def overlap(trained: Lineage | Iterable[TaskMark], tasks: Iterable[TaskLike | TaskMark]) -> list[Overlap]:
    """The tasks that share a task hash or a non-empty gold-write hash with anything trained on, in the order given.

    Where several trained tasks have the same gold writes, the one named is one that refuses, if any does: a harmless
    match inside an official split pair never hides one from another benchmark.
    """
    marks = sorted(trained.trained_on() if isinstance(trained, Lineage) else trained)
    by_task = {mark.task_hash: mark for mark in marks}
    by_writes: dict[str, list[TaskMark]] = {}
    for known in marks:
        by_writes.setdefault(known.gold_write_hash, []).append(known)
    by_writes.pop("", None)
    found = []
    for task in tasks:
        mark = task if isinstance(task, TaskMark) else TaskMark.of(task)
        if mark.task_hash in by_task:
            found.append(Overlap(mark, by_task[mark.task_hash], "task_hash"))
        elif mark.gold_write_hash in by_writes:
            matches = [Overlap(mark, known, "gold_write_hash") for known in by_writes[mark.gold_write_hash]]
            found.append(next((match for match in matches if match.refuses), matches[0]))
    return found


def versions() -> dict[str, str]:
    """Versions of Python, of muarl and of the packages that can change a result; what is not installed is left out."""
    from muarl_cli import __version__

    found = {"python": platform.python_version(), "muarl": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _mark(value: Mapping[str, str]) -> TaskMark:
    return TaskMark(value["task_hash"], value["gold_write_hash"], value["source"], value["scenario"], value["split"])
