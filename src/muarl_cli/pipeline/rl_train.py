"""GRPO with the user in the loop: groups of G rollouts a task, a binary outcome, one update a step.

Each step: draw tasks, hold their conversations, take advantages over *valid* siblings only, drop groups that teach
nothing, update. Invariants: a fault never becomes a reward; the order of tasks depends on the seed alone; a killed run
goes on from its newest checkpoint, reads the episodes that are on disk, and ends with the same weights (on a CPU, with
a scripted user).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.parties import Agents, Policy, Talker, Users, load_policy
from muarl_cli.pipeline.play import Job, Player, job, limits_of
from muarl_cli.pipeline.rollout import chosen, free_keys
from muarl_cli.pipeline.sft import checkpoint_hash, load_tensors, save
from muarl_cli.records import checkpoint
from muarl_cli.records.lineage import Lineage, Parent, TaskMark, TrainedSet, read_lineage, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.settings.models import RlTrain
from muarl_cli.worlds.scenario import Scenario, Task

STAGE = "rl-train"


def plan(settings: RlTrain) -> dict[str, Any]:
    tasks = chosen(settings, settings.tasks)
    steps = total_steps(settings, len(tasks))
    episodes = steps * settings.prompts_per_step * settings.group
    return {
        "tasks": len(tasks),
        "steps": steps,
        "episodes": episodes,
        "episodes_with_refills_at_most": episodes * (1 + settings.refill_rounds),
        "max_usd": settings.max_usd,
        "disk_mb": round(episodes * 0.012, 1),
    }


def total_steps(settings: RlTrain, tasks: int) -> int:
    """Optimiser steps: as set, or whole steps of the epochs (the paper's code too drops a last partial step); 0 where
    only the clock ends it."""
    return settings.steps or int(settings.epochs * (tasks // settings.prompts_per_step))


def run(settings: RlTrain, out: Path, talk: Talker) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=free_keys(True)) as folder:
        if folder.summary is not None:
            talk.say("nothing to do: this run is complete")
            return folder.summary
        tasks = chosen(settings, settings.tasks)
        started = checkpoint.load_latest(out, talk.warn)
        policy = load_policy(
            str(started.folder) if started else settings.model, settings.rendering, settings.dtype, talk
        )
        if started:
            talk.say(f"resuming from step {started.step}")
        lineage = _lineage(settings, folder, tasks)
        with EpisodeLog.open(out) as log:
            for line in log.report.lines():
                talk.warn(line)
            own = _Run(settings, out, folder, policy, lineage, log, tasks, started)
            summary = asyncio.run(_train(own, talk))
        write_lineage(out, lineage)
        summary["artifact"] = artifact_hash(out)
        talk.say(f"next: muarl eval --model {out}")
        return folder.finish(summary)


def _lineage(settings: RlTrain, folder: RunFolder, tasks: list[tuple[Scenario, Task]]) -> Lineage:
    path = checkpoint.resolve_model_path(Path(settings.model), lambda line: None)
    marks = [TaskMark.of(task) for _, task in tasks]
    return Lineage.make(
        stage=STAGE,
        run_id=folder.run_id,
        settings_hash=folder.settings_hash,
        seeds={"seed": settings.seed},
        parents=[(Parent("model", path.name, ""), read_lineage(path))],
        tasks=marks,
        trained_on=[TrainedSet.of(folder.run_id, STAGE, marks)],
    )


@dataclass
class _Run:
    settings: RlTrain
    out: Path
    folder: RunFolder
    policy: Policy
    lineage: Lineage
    log: EpisodeLog
    tasks: list[tuple[Scenario, Task]]
    started: checkpoint.Checkpoint | None


@dataclass
class Batch:
    """The rollouts of one step: groups by task, and what became of them."""

    groups: list[list[Episode]] = field(default_factory=list)
    kept: list[tuple[list[Episode], tuple[float, ...]]] = field(default_factory=list)
    """groups that teach something, with an advantage an episode"""
    dropped: Counter[str] = field(default_factory=Counter)
    """groups that do not, by reason"""


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


async def _train(own: _Run, talk: Talker) -> dict[str, Any]:
    from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer
    from muarl_cli.training.tiny_model import load_model

    settings = own.settings
    steps = total_steps(settings, len(own.tasks))
    spec = GrpoSpec(
        lr=settings.lr,
        schedule=settings.schedule,
        total_steps=steps,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        betas=(settings.betas[0], settings.betas[1]),
        grad_clip=settings.grad_clip,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        kl_coef=settings.kl_coef,
        temperature=settings.temperature,
        micro_batch_tokens=settings.micro_batch_tokens,
        updates_per_batch=settings.updates_per_batch,
    )
    reference = None
    if settings.kl_coef > 0:
        reference = load_model(checkpoint.resolve_model_path(Path(settings.model), talk.warn), own.policy.dtype)
    trainer = GrpoTrainer(own.policy.model, spec, reference)
    stream, seconds = TaskStream(own.tasks, settings.seed), 0.0
    if own.started is not None:
        state = own.started.state
        trainer.load_state(load_tensors(own.started.tensors("optimiser")), state["trainer"])
        stream.at, seconds = state["at"], state["seconds"]
    own.folder.keep_metrics_until(trainer.step)
    agent = own.policy.agent(settings, str(trainer.step))
    users = Users(settings.user, settings.prices, settings.max_usd, own.out)
    agents = Agents("policy", fixed=agent, in_process=True)
    player = Player(agents, users, limits_of(settings), settings.in_flight, own.log)
    begun = time.monotonic() - seconds
    box = settings.stop_after_seconds
    row: dict[str, Any] = next(iter(own.folder.metrics()[-1:]), {})
    async with player:
        with talk.progress(steps, "steps") as bar:
            bar.advance(trainer.step)
            while (not steps or trainer.step < steps) and not (box and time.monotonic() - begun >= box):
                step = trainer.step + 1
                t0 = time.monotonic()
                batch = await collect(own, player, stream, step)
                t1 = time.monotonic()
                row = step_metrics(batch) | dict(trainer.update(samples_of(batch)))
                await agent.engine.sync(None, str(step))
                row |= {"seconds_rollout": round(t1 - t0, 3), "seconds_update": round(time.monotonic() - t1, 3)}
                own.folder.log_metrics(step, {name: value for name, value in row.items() if name != "step"})
                bar.advance(reward=round(row["reward"], 3), entropy=round(row.get("entropy", 0.0), 3))
                last = step == steps or bool(box and time.monotonic() - begun >= box)
                if last or (settings.save_every and step % settings.save_every == 0):
                    elapsed = time.monotonic() - begun if box else 0.0
                    tensors, state = trainer.state()
                    save(own, step, tensors, {"trainer": state, "at": stream.at, "seconds": elapsed}, best=False)
    return {
        "steps": trainer.step,
        "episodes": len(own.log),
        "reward": row.get("reward"),
        "checkpoint": checkpoint_hash(own.out, talk),
    }


async def collect(own: _Run, player: Player, stream: TaskStream, step: int) -> Batch:
    """The rollouts of a step; groups that taught nothing are replaced by other tasks, at most `refill_rounds` times."""
    from muarl_cli.training.advantages import group_advantages

    settings = own.settings
    batch = Batch()
    for _ in range(1 + settings.refill_rounds):
        missing = settings.prompts_per_step - len(batch.kept)
        if not missing:
            break
        drawn = stream.next(missing)
        jobs = [
            _job(own, scenario, task, step, rollout) for scenario, task in drawn for rollout in range(settings.group)
        ]
        episodes = await player.run(jobs)
        for start in range(0, len(episodes), settings.group):
            group = episodes[start : start + settings.group]
            batch.groups.append(group)
            found = group_advantages([e.reward if e.valid else None for e in group], settings.advantage)
            if found.kept:
                batch.kept.append((group, found.advantages))
            else:
                batch.dropped[found.why] += 1
    return batch


def _job(own: _Run, scenario: Scenario, task: Task, step: int, rollout: int) -> Job:
    return job(own.folder.run_id, STAGE, step, scenario, task, rollout, own.settings.seed)


def samples_of(batch: Batch) -> list[Any]:
    """One sample a token row of every valid episode of the kept groups."""
    from muarl_cli.training.grpo import Sample

    return [
        Sample(row, advantage)
        for group, advantages in batch.kept
        for episode, advantage in zip(group, advantages, strict=True)
        if episode.valid
        for row in episode.rows
    ]


def step_metrics(batch: Batch) -> dict[str, Any]:
    """What the rollouts of a step say: rewards, shares, turns (both counts), tokens, faults by kind."""
    episodes = [e for group in batch.groups for e in group]
    valid = [e for e in episodes if e.valid]
    rewards = [[e.reward for e in group if e.valid and e.reward is not None] for group in batch.groups]
    judged = [r for r in rewards if r]
    count = max(1, len(valid))
    return {
        "reward": sum(e.reward or 0.0 for e in valid) / count,
        "all_correct": sum(min(r) == 1 for r in judged) / max(1, len(judged)),
        "all_wrong": sum(max(r) == 0 for r in judged) / max(1, len(judged)),
        "groups": len(batch.groups),
        "groups_kept": len(batch.kept),
        "dropped": dict(batch.dropped),
        "episodes": len(episodes),
        "turns": sum(e.usage["turns"] for e in valid) / count,
        "tool_calls": sum(e.usage["tool_calls"] for e in valid) / count,
        "agent_tokens_per_episode": sum(e.usage["agent_tokens"] for e in valid) / count,
        "ends": dict(sorted(Counter(e.end.reason.value for e in episodes).items())),
        "faults": dict(sorted(Counter(e.end.reason.value for e in episodes if not e.valid).items())),
    }
