"""Evaluation: trials of every task of a set, scored with intervals, beside the floors, never on what was trained on.

Invariant: a score never stands alone. Beside it stand its interval, pass^k, the do-nothing and transfer-only floors,
the write-task rate, and both denominators; and where tasks were seen in training, that too, for ever.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Agents, Talker, Users, needs_write, open_agents
from muarl_cli.pipeline.play import Job, Player, job, limits_of
from muarl_cli.pipeline.rollout import free_keys, lineage_of, play_all, take
from muarl_cli.pipeline.surroundings import around_of
from muarl_cli.records.lineage import overlap, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.reports.layer_tables import layer_table
from muarl_cli.reports.tables import comparison_table, ends_table
from muarl_cli.scoring.rescore import by_label, rescore
from muarl_cli.scoring.summary import ScoreSummary, compare, summarise
from muarl_cli.settings.models import Eval
from muarl_cli.worlds.catalog import load_tasks
from muarl_cli.worlds.scenario import Scenario, Task

STAGE = "eval"
FLOORS = {"do_nothing": "do-nothing", "transfer_only": "transfer-only"}
PAPER_DOMAINS = {"tau2": ("retail",)}
"""domains of each benchmark that are here; the paper's others belong to later releases"""
LEADERBOARD = {"tau2": "base"}


def task_refs(settings: Eval) -> list[str]:
    """The task sets that are evaluated: a benchmark's, or `tasks`."""
    if not settings.bench:
        return list(settings.tasks)
    if settings.bench not in PAPER_DOMAINS:
        raise MuarlError(
            f"the benchmark {settings.bench} is not there yet",
            next_step=f"one of: {', '.join(PAPER_DOMAINS)}; or your own tasks with --tasks",
            code=ExitCode.USAGE,
        )
    split = settings.split or LEADERBOARD[settings.bench]
    return [f"{settings.bench}:{name}:{split}" for name in settings.domain or PAPER_DOMAINS[settings.bench]]


def plan(settings: Eval) -> dict[str, Any]:
    tasks = take(load_tasks(task_refs(settings)), settings.max_tasks)
    episodes = len(tasks) * settings.trials
    return {
        "tasks": len(tasks),
        "write_tasks": sum(task.writes for _, task in tasks),
        "episodes": episodes,
        "floor_episodes": len(FLOORS) * len(tasks) if settings.floors else 0,
        "max_usd": settings.max_usd,
        "disk_mb": round(episodes * 0.012, 1),
    }


def run(settings: Eval, out: Path, talk: Talker) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=free_keys(settings.in_process)) as folder:
        tasks = take(load_tasks(task_refs(settings)), settings.max_tasks)
        seen = check_overlap(settings, tasks, talk) if settings.from_folder else []
        agents = open_agents(settings, out, talk)
        jobs = [
            job(folder.run_id, STAGE, 0, scenario, task, trial, settings.seed)
            for trial in range(settings.trials)
            for scenario, task in tasks
        ]
        with EpisodeLog.open(out) as log:
            for line in log.report.lines():
                talk.warn(line)
            scores = asyncio.run(_play(settings, folder.run_id, tasks, jobs, agents, out, log, talk))
        lineage = lineage_of(settings, folder, tasks, agents)
        write_lineage(out, lineage)
        name = "policy" if settings.agent == "policy" else settings.agent
        floors = {(name, floor): _compare(settings, scores[floor], scores[name]) for floor in FLOORS if floor in scores}
        talk.show(comparison_table(scores, floors).rich())
        talk.show(ends_table(scores[name]).rich())
        stages = {f"{STAGE}/{agent}": floor for floor, agent in FLOORS.items()} | {STAGE: name}
        layers = by_label(rescore(out, resamples=settings.bootstrap, seed=settings.seed), stages)
        talk.show(layer_table(layers).rich())
        summary: dict[str, Any] = {
            "tasks": len(tasks),
            "scores": {label: score.headline() for label, score in scores.items()},
            "full": {label: score.to_json() for label, score in scores.items()},
            "differences": {f"{a}_minus_{b}": c.difference.to_json() for (a, b), c in floors.items()},
            "layers": layers,
            "overlap": seen,
            "artifact": artifact_hash(out),
        }
        if seen:
            talk.warn(f"{len(seen)} of these tasks were trained on: this is no held-out score")
        code = ExitCode.OK if scores[name].result in ("ok", "empty") else ExitCode.PARTIAL
        return folder.finish(summary) | {"exit_code": int(code)}


def _compare(settings: Eval, before: ScoreSummary, after: ScoreSummary) -> Any:
    return compare(before, after, resamples=settings.bootstrap, seed=settings.seed)


async def _play(
    settings: Eval,
    run_id: str,
    tasks: list[tuple[Scenario, Task]],
    jobs: list[Job],
    agents: Agents,
    out: Path,
    log: EpisodeLog,
    talk: Talker,
) -> dict[str, ScoreSummary]:
    """Scores of the floors and of the agent, by name."""
    writes = needs_write(tasks)
    families = {task.task_hash: task.family for _, task in tasks}

    def score(episodes: list[Episode], planned: int) -> ScoreSummary:
        return summarise(
            episodes,
            resamples=settings.bootstrap,
            seed=settings.seed,
            writes=writes,
            families=families,
            planned=planned,
        )

    scores = {}
    if settings.floors and settings.agent not in FLOORS.values():
        offline = settings.user.model_copy(update={"backend": "scripted"})  # a floor must cost nothing
        for label, agent in FLOORS.items():
            users = Users(offline, settings.prices, settings.max_usd, out)
            floor = [job(run_id, f"{STAGE}/{agent}", 0, scenario, task, 0, settings.seed) for scenario, task in tasks]
            player = Player(Agents(agent), users, limits_of(settings), settings.in_flight, log, around_of(settings))
            scores[label] = score(await player.run(floor), len(floor))
    scores["policy" if settings.agent == "policy" else settings.agent] = score(
        await play_all(jobs, agents, settings, out, log, talk), len(jobs)
    )
    return scores


def check_overlap(settings: Eval, tasks: list[tuple[Scenario, Task]], talk: Talker) -> list[dict[str, Any]]:
    """What of `tasks` the checkpoint was trained on, by task hash or by equal gold writes. Refuses, unless allowed;
    inside one official split pair it only warns, since official train and test sets share some."""
    from muarl_cli.records.checkpoint import resolve_model_path
    from muarl_cli.records.lineage import read_lineage

    lineage = read_lineage(resolve_model_path(Path(settings.model), talk.warn))
    if lineage is None:
        talk.warn(f"{settings.model} has no lineage: nobody knows what it was trained on")
        return []
    found = overlap(lineage, [task for _, task in tasks])
    rows = [{"task": o.task.task_hash, "trained": o.trained.task_hash, "by": o.by} for o in found]
    hard = [o for o in found if o.by == "task_hash" or not o.within_official_pair]
    if hard and not settings.allow_overlap:
        raise MuarlError(
            f"{len(hard)} of {len(tasks)} tasks were trained on",
            where=settings.model,
            why="; ".join(f"task {o.task.task_hash} equals {o.trained.task_hash} by {o.by}" for o in hard[:5]),
            next_step="evaluate on held-out tasks, or say --allow-overlap, which is then printed beside the score",
            code=ExitCode.GATE_FAILED,
        )
    if found and not hard:
        talk.warn(f"{len(found)} tasks share their gold writes with training tasks inside one official split pair")
    return rows
