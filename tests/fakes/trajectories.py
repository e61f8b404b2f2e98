"""Gold trajectories and four ways to spoil them: what is played differs, the task that is scored stays."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.worlds.scenario import GoldCall, Task


class Playing(GoldReplay):
    """Plays the gold calls of another version of the task."""

    def __init__(self, played: Task) -> None:
        super().__init__()
        self.played = played

    def open(self, stage: Any, task: Any) -> Any:
        return super().open(stage, self.played)


def variants(task: Task, seed: int = 0) -> dict[str, Task]:
    """The task with what its gold replay plays replaced; the reward is that of the real one."""
    rng = random.Random(f"{seed}:{task.id}")
    gold = list(task.gold)
    shuffled = rng.sample(gold, len(gold))
    cut = gold[: rng.randrange(len(gold))] if gold else []
    return {
        "gold": task,
        "truncated": replace(task, gold=tuple(cut), communicate=()),
        "shuffled": replace(task, gold=tuple(shuffled)),
        "perturbed": replace(task, gold=tuple(perturbed(gold, rng))),
    }


def perturbed(gold: Sequence[GoldCall], rng: random.Random) -> list[GoldCall]:
    """One argument of one call changed, to another value that the same task uses where there is one."""
    calls = list(gold)
    places = [i for i, call in enumerate(calls) if call.arguments]
    if not places:
        return calls[1:]
    place = rng.choice(places)
    name = rng.choice(sorted(calls[place].arguments))
    value = calls[place].arguments[name]
    others = [c.arguments[name] for c in calls if name in c.arguments and c.arguments[name] != value]
    arguments = {**calls[place].arguments, name: rng.choice(others) if others else other(value)}
    calls[place] = replace(calls[place], arguments=arguments)
    return calls


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return value[:-1]
    return f"{value}x" if isinstance(value, str) else value
