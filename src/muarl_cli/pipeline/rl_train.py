"""GRPO with the user in the loop: groups of G rollouts a task, a binary outcome, one update a step.

Each step: hold the conversations of a batch (`rl_batches`), take advantages over *valid* siblings only, update.
Invariant: a killed run goes on from its newest checkpoint, reads the episodes that are on disk, and ends with the same
weights (on a CPU, with a scripted user).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from muarl_cli.conversation.scheduler import Places
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.lookahead import Lookahead
from muarl_cli.pipeline.parties import Agents, Talker, Users
from muarl_cli.pipeline.peak import Peak
from muarl_cli.pipeline.play import Job, Player, job, limits_of, replaced_code
from muarl_cli.pipeline.policy import Policy, deliver, load_policy, open_policy
from muarl_cli.pipeline.rl_batches import Batch, InTurn, StepTasks, TaskStream, collect, samples_of, step_metrics
from muarl_cli.pipeline.rl_metrics import behaviour_metrics, staleness_metrics
from muarl_cli.pipeline.rollout import chosen, free_keys
from muarl_cli.pipeline.sft import checkpoint_hash, dtype_of, save
from muarl_cli.pipeline.team import Team, model_on, optimiser_of, prepared, run_together
from muarl_cli.pipeline.token_balance import rl_balance, totals
from muarl_cli.records import checkpoint
from muarl_cli.records.checkpoint import Mark
from muarl_cli.records.lineage import Lineage, Parent, TaskMark, TrainedSet, read_lineage, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.records.trackers import Trackers
from muarl_cli.settings.models import RlTrain
from muarl_cli.teams import computed
from muarl_cli.training.watchdogs import Alarm, Reaction, alarms, begun, end_of_run
from muarl_cli.worlds.scenario import Scenario, Task

STAGE = "rl-train"


def plan(settings: RlTrain) -> dict[str, Any]:
    """What a run would do; what only the clock decides (`stop_after_seconds`) is None."""
    tasks = chosen(settings, settings.tasks)
    steps = total_steps(settings, len(tasks))
    a_step, at_most = settings.prompts_per_step, settings.prompts_per_step * (1 + settings.refill_rounds)
    episodes = steps * min(a_step, len(tasks)) * settings.group
    return {
        "tasks": len(tasks),
        "steps": steps or None,
        "stop_after_seconds": settings.stop_after_seconds or None,
        "episodes": episodes or None,
        "episodes_with_refills_at_most": steps * min(at_most, len(tasks)) * settings.group or None,
        "max_usd": settings.max_usd,
        "disk_mb": round(episodes * 0.012, 1) or None,
    }


def total_steps(settings: RlTrain, tasks: int) -> int:
    """Optimiser steps: as set, or whole steps of the epochs (the paper's code too drops a last partial step); 0 where
    only the clock ends it. Raises `MuarlError` where the epochs hold no whole step: such a run would never end."""
    steps = settings.steps or int(settings.epochs * (tasks // settings.prompts_per_step))
    few = tasks < settings.prompts_per_step
    if settings.epochs and not steps and not settings.stop_after_seconds:
        raise MuarlError(
            f"epochs={settings.epochs:g} of {tasks} tasks hold no whole step of {settings.prompts_per_step}",
            where="prompts_per_step",
            next_step=(f"set prompts_per_step={tasks} or less" if few else "set more epochs")
            + ", or the number of steps",
            code=ExitCode.CONFIG,
        )
    return steps


def run(settings: RlTrain, out: Path, talk: Talker) -> dict[str, Any]:
    return run_together(settings, partial(_trainer, settings, None), partial(_lead, settings, out, talk))


def _lead(settings: RlTrain, out: Path, talk: Talker, team: Team) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=free_keys(not settings.engines)) as folder:
        if folder.summary is not None:
            talk.say("nothing to do: this run is complete")
            return _with_code(folder.summary)
        tasks = chosen(settings, settings.tasks)
        if len(tasks) < settings.prompts_per_step:
            talk.warn(f"prompts_per_step={settings.prompts_per_step}, but there are only {len(tasks)} tasks for a step")
        started = checkpoint.load_latest(out, talk.warn)
        place = str(started.folder) if started else settings.model
        policy = load_policy(place, settings.rendering, settings.dtype, talk, chat=settings.chat)
        policy.model = prepared(policy.model, settings)
        if started:
            talk.say(f"resuming from step {started.step}")
        lineage = _lineage(settings, folder, tasks)
        with (
            EpisodeLog.open(out) as log,
            Trackers(settings.trackers, out, folder.run_id, talk.warn) as trackers,
        ):
            for line in log.report.lines():
                talk.warn(line)
            trained = policy.model
            if settings.shards.zero == 3:  # it will hold a part of the weights: conversations are held by a copy
                policy.model = _copy(settings, policy)
            agents = open_policy(policy, settings, str(started.step if started else 0), out)
            if settings.staleness:
                agents.engine.require_updates_in_flight()
            own = _Run(settings, out, folder, policy, trained, agents, lineage, log, trackers, tasks, started, team)
            summary = asyncio.run(_train(own, talk))
        write_lineage(out, lineage)
        summary["artifact"] = artifact_hash(out)
        talk.say(f"next: muarl eval --model {out}")
        return _with_code(folder.finish(summary))


def _copy(settings: RlTrain, policy: Policy) -> Any:
    from muarl_cli.training.tiny_model import load_model

    return prepared(load_model(policy.folder, dtype_of(policy.model)), settings)


def _with_code(summary: dict[str, Any]) -> dict[str, Any]:
    return summary | {"exit_code": int(replaced_code(summary.get("faults", 0), summary["episodes"]))}


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
    trained: Any
    """the model that is trained: the policy's own, or the one that it is a copy of"""
    agents: Agents
    lineage: Lineage
    log: EpisodeLog
    trackers: Trackers
    tasks: list[tuple[Scenario, Task]]
    started: checkpoint.Checkpoint | None
    team: Team


def _trainer(settings: RlTrain, own: Any, ranks: Any, folder: str, dtype: str, reference: str, steps: int) -> Any:
    """This rank's trainer; `own` is the model on rank 0, the others load it from `folder`. `reference` is the folder of
    the model that the KL is measured against; an adapter has its base for that."""
    from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer
    from muarl_cli.training.tiny_model import load_model

    spec = GrpoSpec(
        lr=settings.lr,
        schedule=settings.schedule,
        total_steps=steps,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        betas=(settings.betas[0], settings.betas[1]),
        grad_clip=settings.grad_clip,
        loss=settings.loss,
        loss_length=settings.loss_length,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        dual_clip=settings.dual_clip,
        adaptive_clip=settings.adaptive_clip,
        kl_coef=settings.kl_coef,
        kl_estimator=settings.kl_estimator,
        importance_cap=settings.importance_cap,
        sequence_gate=(settings.sequence_gate[0], settings.sequence_gate[1]) if settings.sequence_gate else None,
        off_policy_mask=settings.off_policy_mask,
        temperature=settings.temperature,
        micro_batch_tokens=settings.micro_batch_tokens,
        updates_per_batch=settings.updates_per_batch,
    )
    model = model_on(ranks, own, folder, dtype, settings)
    apart = settings.kl_coef > 0 and not hasattr(model, "disable_adapter")
    base = load_model(Path(reference), dtype) if apart else None
    # Only then were the tokens drawn with the log-probabilities that the trainer finds; top-p moves the drawn ones.
    sampled_is_old = not settings.engines and settings.top_p == 1
    return GrpoTrainer(model, spec, base, sampled_is_old, optimiser_of(settings, ranks))


async def _train(own: _Run, talk: Talker) -> dict[str, Any]:
    settings, team, policy = own.settings, own.team, own.policy
    steps = total_steps(settings, len(own.tasks))
    reference = str(checkpoint.resolve_model_path(Path(settings.model), talk.warn))
    make = partial(_trainer, settings, own.trained)
    trainer = team.open(make, str(policy.folder), dtype_of(policy.model), reference, steps)
    stream, seconds = TaskStream(own.tasks, settings.seed), 0.0
    if own.started is not None:
        state = own.started.state
        team("read", str(own.started.folder / checkpoint.TRAINER), state["trainer"])
        stream.at, seconds = state["at"], state["seconds"]
    peak = _peak(own)
    own.folder.keep_metrics_until(trainer.step)
    users = Users(settings.user, settings.prices, settings.max_usd, own.out)
    bound = settings.staleness
    places = Places(settings.in_flight) if bound else None
    player = Player(own.agents, users, limits_of(settings), settings.in_flight, own.log, places=places)
    started_at = time.monotonic() - seconds
    box = settings.stop_after_seconds
    history = own.folder.metrics()
    row: dict[str, Any] = dict(history[-1]) if history else {}
    for alarm in _alarms(own, history):
        if alarm.reaction is Reaction.STOP:
            raise end_of_run(alarm, str(own.out))
    ends: dict[int, int] = {}
    """where the stream stands after a step's own tasks: what its checkpoint goes on from"""

    def hold(step: int) -> Coroutine[Any, Any, Batch]:
        tasks = StepTasks(stream, settings.prompts_per_step, step) if bound else InTurn(stream)
        ends[step] = stream.at
        return collect(settings, player, tasks, partial(_job, own, step))

    async def apart(work: Callable[..., Any], *arguments: Any) -> Any:
        """Away from the event loop, so that conversations go on meanwhile."""
        return await asyncio.to_thread(computed, work, *arguments) if bound else work(*arguments)

    async with player, Lookahead(bound, trainer.step, steps, hold) as ahead:
        if not own.agents.in_process:  # whatever the servers were started with
            await deliver(own.agents, policy, str(trainer.step))
        with talk.progress(steps, "steps") as bar:
            bar.watch(player.meter.figures)
            bar.advance(trainer.step)
            clock, away = _Clock(places), set[str]()
            while (not steps or trainer.step < steps) and not (box and time.monotonic() - started_at >= box):
                step = trainer.step + 1
                t0, drawn_before = time.monotonic(), own.agents.seconds_drawing
                ahead.serving(trainer.step)
                batch = await ahead.of(step)
                t1 = time.monotonic()
                row = step_metrics(batch) | behaviour_metrics(batch)
                done = min(1.0, (t1 - started_at) / box) if box else None  # the clock sets the learning rate's course
                row |= await apart(team, "update", samples_of(batch), done)
                row |= rl_balance(batch, row)
                if row["skipped"] > (history[-1].get("skipped", 0) if history else 0):
                    row["not_applied"] = [e.episode_id for group in batch.kept for e in group.episodes if e.valid]
                    talk.warn(f"step {step} was not finite and not applied; its episodes are named in metrics.jsonl")
                if own.trained is not policy.model:
                    policy.model.load_state_dict(await apart(team, "weights"), strict=False)
                await deliver(own.agents, policy, str(step))
                for server in set(own.agents.unreachable) - away:
                    talk.warn(f"{server} does not answer: the others go on; it is asked again after each step")
                away = set(own.agents.unreachable)
                row |= {"seconds_rollout": round(t1 - t0, 3), "seconds_update": round(time.monotonic() - t1, 3)}
                if bound:
                    row |= staleness_metrics(batch, step - 1) | clock.shares(t1 - t0)
                if own.agents.in_process:
                    row["seconds_drawing"] = round(own.agents.seconds_drawing - drawn_before, 3)
                own.folder.log_metrics(step, {name: value for name, value in row.items() if name != "step"})
                own.trackers.log(step, row)
                halting = _look(own, history, row, talk)
                bar.advance(reward=round(row["reward"], 3), entropy=round(row.get("entropy", 0.0), 3))
                last = step == steps or bool(box and time.monotonic() - started_at >= box)
                if last or halting or (settings.save_every and step % settings.save_every == 0):
                    elapsed = time.monotonic() - started_at if box else 0.0
                    at = ends[step] if bound else stream.at
                    mark = Mark.HIGHEST if peak.passed(history, step) else None
                    await apart(save, own, step, {"at": at, "seconds": elapsed, "highest": peak.place}, mark)
                if halting:
                    raise end_of_run(halting, str(own.out))
    return {
        "steps": trainer.step,
        "episodes": len(own.log),
        "faults": len(own.log) - len(own.log.done_ids()),
        "reward": row.get("reward"),
        "tokens": totals(history),
        "checkpoint": checkpoint_hash(own.out, talk),
    }


def _peak(own: _Run) -> Peak:
    """Where a resumed run stood; its newest checkpoint is marked again if it was killed before that."""
    if own.started is None:
        return Peak()
    highest = own.started.state.get("highest")
    if highest and highest[0] == own.started.step:
        checkpoint.mark_again(own.out, own.started.step, Mark.HIGHEST)
    return Peak(own.started.step, highest)


class _Clock:
    """Who waited for whom, step by step; the trainer waits for the conversations of its step, the rollout for room
    within the bound."""

    def __init__(self, places: Places | None) -> None:
        self._places, self._since, self._busy = places, time.monotonic(), 0.0

    def shares(self, waited: float) -> dict[str, float]:
        """Shares of the time since the last call: in which the trainer `waited` (seconds), and in which no conversation
        was going on."""
        assert self._places is not None
        now, busy = time.monotonic(), self._places.busy_seconds()
        span = max(1e-9, now - self._since)
        idle = 1.0 - (busy - self._busy) / span
        self._since, self._busy = now, busy
        return {"trainer_idle_share": round(waited / span, 4), "rollout_idle_share": round(max(0.0, idle), 4)}


def _alarms(own: _Run, history: list[dict[str, Any]], find: Any = alarms) -> list[Alarm]:
    bounds = own.settings.alarm_at.model_dump()
    found: list[Alarm] = find(history, own.settings.watchdogs.model_dump(), bounds, bounds["window"])
    return found


def _look(own: _Run, history: list[dict[str, Any]], row: dict[str, Any], talk: Talker) -> Alarm | None:
    """Add the step to the history and say what begins to go wrong; the alarm that ends the process, a stop before a
    pause, or None."""
    history.append(row)
    for alarm in _alarms(own, history, begun):
        talk.warn(f"watchdog {alarm.name}: {alarm.why}")
    halting = [alarm for alarm in _alarms(own, history) if alarm.reaction is not Reaction.WARN]
    return min(halting, key=lambda alarm: alarm.reaction is Reaction.PAUSE, default=None)


def _job(own: _Run, step: int, scenario: Scenario, task: Task, slot: int) -> Job:
    return job(own.folder.run_id, STAGE, step, scenario, task, slot, own.settings.seed)
