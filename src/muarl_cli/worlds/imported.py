"""Tasks with the shape of real conversations and none of their values.

A request that a person made is kept as its shape: what they wanted, which facts they told at once, which they did not
know, what they changed. Values are drawn from the scenario's own state, so that the tools can answer. Invariants: no
word and no value of a transcript is in a task; the same folder gives the same tasks; the gold calls of each succeed.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.domain import Domain, builtin
from muarl_cli.worlds.generator import TaskGenerator
from muarl_cli.worlds.goals import Change, Goal
from muarl_cli.worlds.scenario import Task

SPLIT = "imported"
SHAPES = "shapes.jsonl"
TRIES = 400
"""draws of values before a shape is given up: not everybody in the scenario's state has something that fits"""


@dataclass(frozen=True)
class Shape:
    """One request as a person made it."""

    intent: str
    told: tuple[str, ...]
    """slots told with the request, in this order"""
    unknown: tuple[str, ...] = ()
    change: str = ""
    """the slot about which they changed their mind"""
    refused: bool = False
    """the agent said that it is not possible"""


class ImportedDomain(Domain):
    """A built-in scenario with the tasks of a folder that `muarl import transcripts` wrote."""

    def __init__(self, base: Domain, source: str, shapes: Mapping[str, Sequence[Shape]]) -> None:
        self.__dict__.update(copy.copy(base).__dict__)  # the scenario's data and state are shared, its tasks are not
        self.source = source
        self._gold, self._tasks = {}, {}
        self._imported = shapes

    def splits(self) -> tuple[str, ...]:
        return (SPLIT,)

    def tasks(self, split: str) -> Sequence[Task]:
        if split != SPLIT:
            raise MuarlError(
                f"unknown split {split!r} of {self.source}:{self.name}",
                next_step=f"there is one: {SPLIT}",
                code=ExitCode.USAGE,
            )
        if split not in self._tasks:
            drawn = [self.draw(name, shapes) for name, shapes in self._imported.items()]
            self._tasks[split] = tuple(task for task in drawn if task is not None)
        return self._tasks[split]

    @cached_property
    def _drawer(self) -> TaskGenerator:
        return self.generator

    def draw(self, name: str, shapes: Sequence[Shape]) -> Task | None:
        """A task of these requests; None where nobody in the scenario's state can make them."""
        rng = random.Random(f"{self.name}/{SPLIT}/{name}")
        for _ in range(TRIES):
            goals = self._goals(rng, shapes)
            if goals is None:
                continue
            drawn = self._drawer.task(SPLIT, 0, goals)
            task = replace(drawn, id=name, source=self.source)
            try:
                self.gold_fingerprint(task)
            except ValueError:  # one request makes the other one impossible
                continue
            return task
        return None

    def _goals(self, rng: random.Random, shapes: Sequence[Shape]) -> list[Goal] | None:
        subject = rng.choice(self._drawer.subjects)
        goals: list[Goal] = []
        used: dict[str, Any] = {}
        # a hand-over ends the conversation, so it is the last request
        for shape in sorted(shapes, key=lambda s: self.language.intents[s.intent].then_transfer):
            goal = self._goal(rng, subject, shape, used)
            if goal is None:
                return None
            used = dict(goal.slots) | {"intent": goal.intent, "refused": goal.refused}
            goals.append(goal)
        return goals

    def _goal(self, rng: random.Random, subject: str, shape: Shape, used: dict[str, Any]) -> Goal | None:
        intent = self.language.intents[shape.intent]
        wish = "refused" if shape.refused and intent.refuse else "possible"
        drawn = self._module.draw(rng, intent.name, subject, self._tables, wish, used)
        if drawn is None:
            return None
        slots, refused, hints = drawn
        unknown = {slot: hints[slot] for slot in shape.unknown if slot in hints and slot in intent.slots}
        change = None
        if shape.change in intent.changes and not refused:
            change = Change(shape.change, self._module.other_value(rng, shape.change, slots[shape.change]))
        told = tuple(slot for slot in shape.told if slot not in unknown)
        return Goal(intent.name, {slot: slots[slot] for slot in intent.slots}, told, unknown, change, refused)


def shapes_text(scenario: str, shapes: Mapping[str, Sequence[Shape]]) -> bytes:
    """The text of a folder's `shapes.jsonl`."""
    rows = [
        {"id": name, "scenario": scenario, "requests": [asdict(shape) for shape in some]}
        for name, some in shapes.items()
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def imported(folder: str, name: str) -> ImportedDomain:
    """The scenario of an imported folder; raises `MuarlError` where the folder is none, or of another scenario."""
    file = Path(folder) / SHAPES
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = {row["id"]: tuple(_shape(request) for request in row["requests"]) for row in rows}
        scenarios = {row["scenario"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MuarlError(
            f"{folder} holds no imported transcripts",
            where=str(file),
            why=str(error),
            next_step=f"muarl import transcripts FILE --scenario {name} --out {folder}",
            code=ExitCode.MISSING_INPUT,
        ) from error
    if scenarios != {name}:
        raise MuarlError(
            f"{folder} was imported for {', '.join(sorted(scenarios))}, not for {name}",
            next_step=f"{folder}:{next(iter(sorted(scenarios)), name)}:{SPLIT}",
            code=ExitCode.USAGE,
        )
    return ImportedDomain(builtin(name), folder, found)


def _shape(row: Mapping[str, Any]) -> Shape:
    return Shape(
        str(row["intent"]), tuple(row["told"]), tuple(row["unknown"]), str(row["change"]), bool(row["refused"])
    )
