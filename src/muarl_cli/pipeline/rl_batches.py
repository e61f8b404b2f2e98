"""The rollouts of an RL step: whose conversations are held, what they were worth, and what is learned from them.

A *slot* is one of the G places of a group. An invalid episode leaves its slot empty: the slot is played again (at most
`retry_faults` times), and what is still empty then leaves the loss and the group's baseline. A group that teaches
nothing, because too few of its slots are valid or all of them earned alike, is replaced by another task (at most
`refill_rounds` times). Alike is judged, with a tolerance, on the reward that is trained as it was earned: before
anything is subtracted, divided or dealt out to turns, none of which may make a difference where there is none. With the
reward `outcome` that is the outcome; with `rubric` or `gated`, equal outcomes that were earned differently do teach.
Invariants: a fault never becomes a reward; the order of tasks depends on the seed alone; a
killed run draws the same tasks again and finds the episodes that were already held.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.play import Job, Plays, run_again
from muarl_cli.scoring.rewards import reward_of, turn_rewards
from muarl_cli.settings.models import RlTrain
from muarl_cli.worlds.scenario import Scenario, Task

T = TypeVar("T")


class TaskStream:
    """Tasks in the order of training: a fresh permutation an epoch, seeded; `at` is the position to resume from."""

    def __init__(self, tasks: Sequence[tuple[Scenario, Task]], seed: int, at: int = 0) -> None:
        self.tasks, self.seed, self.at = tasks, seed, at

    def next(self, count: int) -> list[tuple[Scenario, Task]]:
        return [self._one() for _ in range(count)]

    def _one(self) -> tuple[Scenario, Task]:
        epoch, place = divmod(self.at, len(self.tasks))
        order = list(range(len(self.tasks)))
        random.Random(derive_seed(self.seed, "order", epoch)).shuffle(order)
        self.at += 1
        return self.tasks[order[place]]


class Draws(Protocol):
    """The tasks of one step. None comes twice in it: the episodes of a step are named after their tasks, so the second
    group would be the first one again and count double."""

    def next(self, count: int) -> list[tuple[Scenario, Task]]:
        """The next `count` tasks, or as many as are left."""
        ...


class InTurn:
    """The tasks of one step where steps come one after another: straight from the stream, replacements too. Where an
    epoch ends within the step, tasks of the new one that the step has already are passed over."""

    def __init__(self, stream: TaskStream) -> None:
        self._stream, self._had = stream, set[str]()
        self._all = len({task.task_hash for _, task in stream.tasks})

    def next(self, count: int) -> list[tuple[Scenario, Task]]:
        drawn: list[tuple[Scenario, Task]] = []
        while len(drawn) < count and len(self._had) < self._all:
            ((scenario, task),) = self._stream.next(1)
            if task.task_hash not in self._had:
                self._had.add(task.task_hash)
                drawn.append((scenario, task))
        return drawn


class StepTasks:
    """The tasks of one step where several steps are under way: its own part of the stream, taken at once, and then
    replacements that the step's number draws. Who is done first has no say in who gets which task."""

    def __init__(self, stream: TaskStream, count: int, step: int) -> None:
        spare = TaskStream(stream.tasks, derive_seed(stream.seed, "replacements", step))
        order = {task.task_hash: (scenario, task) for scenario, task in stream.next(count)}
        for scenario, task in spare.next(len(stream.tasks)):
            order.setdefault(task.task_hash, (scenario, task))
        self._left = list(order.values())

    def next(self, count: int) -> list[tuple[Scenario, Task]]:
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn


@dataclass
class Group:
    """The slots of one task, with the last episode that was held in each."""

    scenario: Scenario
    task: Task
    episodes: list[Episode]
    rewards: list[float | None]
    """None: the slot is empty"""
    advantages: list[float | tuple[float, ...]] = field(default_factory=list)
    """one a slot, or one for each of its agent turns; empty until the batch is complete"""

    @property
    def success_rate(self) -> float:
        valid = [e.reward or 0.0 for e in self.episodes if e.valid]
        return sum(reward >= 1.0 for reward in valid) / max(1, len(valid))


@dataclass
class Batch:
    """The rollouts of one step."""

    groups: list[Group] = field(default_factory=list)
    kept: list[Group] = field(default_factory=list)
    """those that teach something"""
    dropped: Counter[str] = field(default_factory=Counter)
    """groups that do not, by reason"""
    faults: Counter[str] = field(default_factory=Counter)
    """invalid episodes by end reason, those of slots that were filled later included"""
    replaced: list[Episode] = field(default_factory=list)
    """invalid episodes whose slots were played again"""
    episodes: int = 0
    """conversations held, all attempts"""


async def collect(
    settings: RlTrain, player: Plays, tasks: Draws, make_job: Callable[[Scenario, Task, int], Job]
) -> Batch:
    """Hold the conversations of a step. `make_job(scenario, task, slot)` names one."""
    from muarl_cli.training.advantages import Method, group_advantages

    batch = Batch()
    for _ in range(1 + settings.refill_rounds):
        missing = settings.prompts_per_step - len(batch.kept)
        drawn = tasks.next(missing)
        if not drawn:
            break
        jobs = [make_job(scenario, task, slot) for scenario, task in drawn for slot in range(settings.group)]
        episodes, replaced = await run_again(player, jobs, settings.retry_faults)
        batch.episodes += len(jobs) + len(replaced)
        batch.replaced += replaced
        batch.faults.update(e.end.reason.value for e in (*replaced, *episodes) if not e.valid)
        for number, (scenario, task) in enumerate(drawn):
            slots = episodes[number * settings.group : (number + 1) * settings.group]
            group = Group(scenario, task, slots, [reward_of(settings.reward, e, scenario, task) for e in slots])
            batch.groups.append(group)
            found = group_advantages(group.rewards, Method.MEAN)
            if found.kept:
                batch.kept.append(group)
            else:
                batch.dropped[found.why] += 1
    _compare(batch, settings)
    return batch


def _compare(batch: Batch, settings: RlTrain) -> None:
    """Advantages of all kept groups, once the whole batch is known."""
    from muarl_cli.training.advantages import deviation, group_advantages, turn_advantages

    spread = deviation([r for group in batch.groups for r in group.rewards if r is not None])
    for group in batch.kept:
        if settings.credit == "turn":
            earned = [turn_rewards(settings.reward, e, group.scenario, group.task) for e in group.episodes]
            # an agent that never moved has no turn to teach, but what became of it is what siblings are compared with
            known = [
                (r,) if turns == () and r is not None else turns for turns, r in zip(earned, group.rewards, strict=True)
            ]
            found = turn_advantages(known, settings.advantage)
            group.advantages = [0.0 if turns == () else own for turns, own in zip(earned, found, strict=True)]
        else:
            group.advantages = list(group_advantages(group.rewards, settings.advantage, spread).advantages)


def samples_of(batch: Batch) -> list[Any]:
    """One sample a token row of every filled slot of the kept groups."""
    from muarl_cli.training.grpo import Sample

    samples = []
    number = 0
    for group in batch.kept:
        for episode, reward, advantage in zip(group.episodes, group.rewards, group.advantages, strict=True):
            if reward is None:
                continue
            number += 1
            each = by_token(episode.rows, advantage) if isinstance(advantage, tuple) else None
            for place, row in enumerate(episode.rows):
                worth = each[place] if each is not None else advantage
                samples.append(Sample(row, worth, number, group.success_rate))
    return samples


def by_token(rows: Sequence[TokenRow], turns: Sequence[T]) -> list[tuple[T, ...]]:
    """What each agent token of each row has by its turn: a run of agent tokens is one turn, counted through all rows. A
    run after the last turn of the log is one that a limit cut off; it counts with the last."""
    found = []
    turn = -1
    for row in rows:
        before = int(Owner.TEMPLATE)
        values = []
        for place, owner in enumerate(row.owners):
            turn += owner == Owner.AGENT and before != Owner.AGENT
            before = owner
            if owner == Owner.AGENT and place:
                values.append(turns[min(turn, len(turns) - 1)])
        found.append(tuple(values))
    if turn + 1 < len(turns):
        raise ValueError(f"{len(turns)} agent turns in the log, but {turn + 1} in the tokens")
    return found


def step_metrics(batch: Batch) -> dict[str, Any]:
    """What the rollouts of a step say: rewards, shares, turns (both counts), tokens, faults by kind."""
    episodes = [e for group in batch.groups for e in group.episodes]
    valid = [e for e in episodes if e.valid]
    outcomes = [[e.reward for e in group.episodes if e.valid and e.reward is not None] for group in batch.groups]
    judged = [r for r in outcomes if r]
    count = max(1, len(valid))
    earned = [r for group in batch.groups for r in group.rewards if r is not None]
    return {
        "reward": sum(earned) / max(1, len(earned)),
        "outcome": sum(e.reward or 0.0 for e in valid) / count,
        "all_correct": sum(min(r) == 1 for r in judged) / max(1, len(judged)),
        "all_wrong": sum(max(r) == 0 for r in judged) / max(1, len(judged)),
        "groups": len(batch.groups),
        "groups_kept": len(batch.kept),
        "dropped": dict(batch.dropped),
        "episodes": batch.episodes,
        "valid_share": len(valid) / max(1, len(episodes)),
        "turns": sum(e.usage["turns"] for e in valid) / count,
        "tool_calls": sum(e.usage["tool_calls"] for e in valid) / count,
        "agent_tokens_per_episode": sum(e.usage["agent_tokens"] for e in valid) / count,
        "ends": dict(sorted(Counter(e.end.reason.value for e in episodes).items())),
        "faults": dict(sorted(batch.faults.items())),
    }
