"""The task generator of the built-in scenarios: goals drawn from a domain's state, in families, in disjoint splits.

Invariant: no two tasks of a domain, in whatever split, share a task hash or a non-empty gold-write hash. The test and
dev splits are drawn first, so that they do not depend on how many training tasks are wanted.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.goals import Change, Goal
from muarl_cli.worlds.language import Language, value_text
from muarl_cli.worlds.scenario import GoldCall, Task

SPLIT_SIZES = {"test": 240, "dev": 120, "train": 2400}
SHAPES = {("write",): 30, ("write", "write"): 50, ("refused", "write"): 12, ("refused",): 5}
"""how many goals a task has and which of them the domain must refuse; weights, before tasks that a domain's state does
not hold are thrown away. A domain in which that happens often gives its own."""
CHANGE_SHARE = 0.65
"""share of tasks in which the user changes their mind: what separates an agent that asks from one that does not"""
UNKNOWN_SHARE = 0.12
MOST_IN_VAIN = 3_000
"""draws in a row that bring no new task, before a domain is held to be too small"""
TELL_SHARE = 0.7
"""share of the needed facts that the user tells with the opening"""


class TaskGenerator:
    """Draws the tasks of one domain."""

    def __init__(
        self,
        name: str,
        language: Language,
        module: ModuleType,
        tables: Mapping[str, Any],
        source: str = "builtin",
        sizes: Mapping[str, int] = SPLIT_SIZES,
        shapes: Mapping[tuple[str, ...], int] = SHAPES,
    ) -> None:
        self.name, self.language, self.module, self.tables = name, language, module, tables
        self.source, self.sizes, self.shapes = source, sizes, shapes
        self.subjects = module.subjects(tables)
        self._task_hashes: set[str] = set()
        self._write_hashes: set[str] = set()

    def splits(self, up_to: str) -> dict[str, tuple[Task, ...]]:
        """The splits from the first one up to and including `up_to`."""
        drawn: dict[str, tuple[Task, ...]] = {}
        for split, size in self.sizes.items():
            drawn[split] = self._split(split, size)
            if split == up_to:
                break
        return drawn

    def _split(self, split: str, size: int) -> tuple[Task, ...]:
        rng = random.Random(f"{self.name}/tasks/{split}")
        tasks: list[Task] = []
        in_vain = 0
        while len(tasks) < size:
            task = self._draw(rng, split, len(tasks))
            if task is None or task.task_hash in self._task_hashes or task.gold_write_hash in self._write_hashes:
                in_vain += 1
                if in_vain > MOST_IN_VAIN:
                    raise self._too_few(split, len(tasks))
                continue
            in_vain = 0
            self._task_hashes.add(task.task_hash)
            if task.gold_write_hash:
                self._write_hashes.add(task.gold_write_hash)
            tasks.append(task)
        return tuple(tasks)

    def _too_few(self, split: str, found: int) -> MuarlError:
        return MuarlError(
            f"{self.source}:{self.name} has no more than {found} different {split} tasks",
            why=f"{MOST_IN_VAIN} further draws brought nothing new",
            next_step="give it more values or intents, or smaller `sizes`",
            code=ExitCode.BAD_DATA,
        )

    def _draw(self, rng: random.Random, split: str, number: int) -> Task | None:
        shape = rng.choices(list(self.shapes), list(self.shapes.values()))[0]
        subject = rng.choice(self.subjects)
        changing = rng.randrange(len(shape)) if rng.random() < CHANGE_SHARE else -1
        if changing >= 0 and shape[changing] == "refused" and "write" in shape:
            changing = shape.index("write")
        goals: list[Goal] = []
        used: dict[str, Any] = {}
        for place, kind in enumerate(shape):
            taken, last = {g.intent for g in goals}, place == len(shape) - 1
            goal = self._goal(rng, subject, kind, used, changing == place, taken, last)
            if goal is None:
                return None
            used = dict(goal.slots) | {"intent": goal.intent, "refused": goal.refused}
            goals.append(_still_unknown(goal, goals))
        return self.task(split, number, goals)

    def _goal(
        self,
        rng: random.Random,
        subject: str,
        kind: str,
        used: dict[str, Any],
        change: bool,
        taken: set[str],
        last: bool,
    ) -> Goal | None:
        intents = [
            intent
            for intent in self.language.intents.values()
            if intent.name not in taken
            and (last or not intent.then_transfer)
            and (kind == "write" or intent.refuse)
            and not (intent.then_transfer and intent.write in {self.language.intents[t].write for t in taken})
        ]
        if not intents:
            return None
        intent = rng.choices(intents, [i.weight for i in intents])[0]
        wish = "possible" if kind == "write" else "refused"
        drawn = self.module.draw(rng, intent.name, subject, self.tables, wish, used)
        if drawn is None:
            return None
        slots, refused, hints = drawn
        unknown = {
            slot: hint
            for slot, hint in hints.items()
            if slot in intent.slots and slots[slot] != used.get(slot) and rng.random() < UNKNOWN_SHARE
        }
        tell = [slot for slot in intent.slots if slot not in unknown and rng.random() < TELL_SHARE]
        rng.shuffle(tell)
        planned = None
        if change and kind == "write" and intent.changes:
            slot = rng.choice(intent.changes)
            planned = Change(slot, self.module.other_value(rng, slot, slots[slot]))
        needed = {slot: slots[slot] for slot in (*intent.slots, *intent.derived) if slot in slots}
        return Goal(intent.name, needed, tuple(tell), unknown, planned, refused)

    def task(self, split: str, number: int, goals: Sequence[Goal]) -> Task:
        """The task of these goals, with the gold calls that they make."""
        gold: list[GoldCall] = []
        writes: list[GoldCall] = []
        for goal in goals:
            intent = self.language.intents[goal.intent]
            final = goal.final
            gold.append(GoldCall(intent.read, self.language.read_call(intent, final)))
            if goal.refused:
                continue
            carried_out = [GoldCall(tool, arguments) for tool, arguments in self.language.writes(intent, final)]
            writes += carried_out
            gold += carried_out
            if intent.then_transfer:
                gold.append(GoldCall("transfer_to_human_agents", {"summary": final.get("topic", intent.name)}))
        family = "+".join(sorted(("!" if g.refused else "") + g.intent for g in goals))
        return Task(
            id=f"{self.name}-{split}-{number:04d}",
            source=self.source,
            scenario=self.name,
            split=split,
            family=family,
            brief={"goals": [goal.to_json() for goal in goals]},
            initial={"base": f"{self.name}/1"},
            gold=tuple(gold),
            gold_writes=tuple(writes),
            communicate=tuple(value_text(g.slots["answer"]) for g in goals if self.language.intents[g.intent].asks),
        )


def _still_unknown(goal: Goal, earlier: list[Goal]) -> Goal:
    """What a user did not know in an earlier goal they do not know in this one either."""
    unknown = {
        slot: hint
        for before in earlier
        for slot, hint in before.unknown.items()
        if slot in goal.slots and goal.slots[slot] == before.slots[slot]
    }
    tell = tuple(slot for slot in goal.tell_first if slot not in unknown)
    return replace(goal, unknown={**goal.unknown, **unknown}, tell_first=tell) if unknown else goal
