"""What two sets of tasks share: by task hash, by gold writes, and by wording.

A side is a task set, a log of episodes, or a checkpoint with its lineage. Invariant: the two hashes mean what they mean
to `eval`, so what refuses here is what an evaluation refuses; wording is reported only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.lineage import Overlap, TaskMark, overlap, read_lineage
from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.wording import Alike, alike, grams, masked
from muarl_cli.worlds.catalog import load_tasks, scenario_of
from muarl_cli.worlds.scenario import Task

TRAINING = ("sft", "rl-train")
"""stages whose folder stands for what was trained on, not for what was played"""


@dataclass(frozen=True)
class Side:
    """The tasks of one side. `names` and `wording` are by task hash, for the tasks that can be loaded here."""

    name: str
    marks: tuple[TaskMark, ...]
    names: Mapping[str, str]
    wording: Mapping[str, frozenset[tuple[str, ...]]]


@dataclass(frozen=True)
class Leaks:
    """What `second` shares with `first`."""

    first: Side
    second: Side
    overlaps: tuple[Overlap, ...]
    alike: tuple[Alike, ...]

    @property
    def refusing(self) -> tuple[Overlap, ...]:
        return tuple(found for found in self.overlaps if found.refuses)

    @staticmethod
    def label(side: Side, mark: TaskMark) -> str:
        """The task's full name where it is known, else its hash."""
        return side.names.get(mark.task_hash, mark.task_hash)

    def to_json(self) -> dict[str, Any]:
        return {
            "first": {"name": self.first.name, "tasks": len(self.first.marks)},
            "second": {"name": self.second.name, "tasks": len(self.second.marks)},
            "by_task": sum(found.by == "task_hash" for found in self.overlaps),
            "by_gold_writes": sum(found.by == "gold_write_hash" for found in self.overlaps),
            "refusing": len(self.refusing),
            "worded_alike": len(self.alike),
            "overlaps": [
                {
                    "task": self.label(self.second, found.task),
                    "with": self.label(self.first, found.trained),
                    "by": found.by,
                    "refuses": found.refuses,
                }
                for found in self.overlaps
            ],
            "wording": [
                {
                    "task": self.second.names[row.task],
                    "with": self.first.names[row.other],
                    "share": round(row.share, 3),
                }
                for row in self.alike
            ],
        }


def leaks(first: str, second: str) -> Leaks:
    """What the tasks of `second` share with those of `first`; each is a task set, or a folder or log. Raises
    `MuarlError` for a side that is neither, and for one without a task."""
    one, other = side_of(first), side_of(second)
    return Leaks(one, other, tuple(overlap(one.marks, other.marks)), tuple(alike(one.wording, other.wording)))


def side_of(text: str) -> Side:
    """The tasks that `text` names: a path, or task sets separated by commas."""
    path = Path(text)
    if path.exists() and not path.name.count(":"):
        marks = _marks_of(path)
        named = dict(_loadable(marks))
    else:
        loaded = load_tasks([part.strip() for part in text.split(",")])
        marks = tuple(TaskMark.of(task) for _, task in loaded)
        named = {task.task_hash: (_name(task), scenario, task) for scenario, task in loaded}
    if not marks:
        raise MuarlError(f"{text} holds no task", code=ExitCode.MISSING_INPUT)
    known = {mark.task_hash for mark in marks} & named.keys()
    wording = {key: grams(masked(_text(*named[key][1:]), _values(named[key][2]))) for key in sorted(known)}
    return Side(text, marks, {key: named[key][0] for key in known}, wording)


def _marks_of(path: Path) -> tuple[TaskMark, ...]:
    """Of a log the tasks that were played, of a checkpoint and a training run those that were trained on."""
    folder = path if path.is_dir() else path.parent
    lineage = read_lineage(folder)
    log = folder / "episodes.jsonl" if path.is_dir() else path
    if lineage is not None and (lineage.stage in TRAINING or not log.exists()):
        return tuple(sorted(lineage.trained_on()))
    if not log.exists():
        below = resolve_model_path(path, lambda line: None)
        lineage = read_lineage(below)
        if lineage is None:
            raise MuarlError(
                f"{path} does not say which tasks it is about",
                why="it has no episodes.jsonl and no lineage.json",
                next_step="name a task set, a log, or a folder that muarl wrote",
                code=ExitCode.MISSING_INPUT,
            )
        return tuple(sorted(lineage.trained_on()))
    hashes = {episode.task_hash for episode in iter_episodes(path)}
    return tuple(lineage.marks_of(hashes)) if lineage else tuple(TaskMark(h) for h in sorted(hashes))


def _loadable(marks: tuple[TaskMark, ...]) -> Iterator[tuple[str, tuple[str, Any, Any]]]:
    """The tasks behind the marks, where their source is here."""
    for source, scenario, split in sorted({(m.source, m.scenario, m.split) for m in marks if m.source}):
        try:
            found = scenario_of(source, scenario)
            tasks = found.tasks(split)
        except MuarlError:
            continue  # a benchmark that is not installed: its hashes are compared all the same
        for task in tasks:
            yield task.task_hash, (_name(task), found, task)


def _name(task: Task) -> str:
    return f"{task.source}:{task.scenario}:{task.split}:{task.id}"


def _text(scenario: Any, task: Any) -> str:
    """What the user of a task is told, without the rules that all users of the benchmark share."""
    told = list(_strings(task.brief))
    return " ".join(told) or str(scenario.user_prompt(task))


def _values(task: Any) -> list[str]:
    return [value for call in task.gold for value in _strings(dict(call.arguments))]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
