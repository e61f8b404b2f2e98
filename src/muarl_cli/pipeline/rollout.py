"""Rollouts: G conversations of each task, written down, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.assertions import AssertionJudge
from muarl_cli.benchmarks.checkouts import use_checkouts
from muarl_cli.errors import ExitCode
from muarl_cli.pipeline.parties import Agents, Talker, Users, chat_model, needs_write
from muarl_cli.pipeline.play import Job, Player, job, limits_of
from muarl_cli.pipeline.policy import open_agents
from muarl_cli.pipeline.surroundings import around_of
from muarl_cli.records.lineage import Lineage, Parent, TaskMark, read_lineage, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder, kept_owed
from muarl_cli.reports.tables import comparison_table
from muarl_cli.scoring.summary import summarise
from muarl_cli.settings.bases import Played
from muarl_cli.settings.grammar import BENCHMARKS
from muarl_cli.settings.models import FREE_KEYS, Rollout
from muarl_cli.worlds.catalog import load_tasks
from muarl_cli.worlds.scenario import Scenario, Task, without_outputs

STAGE = "rollout"
RESAMPLES = 10_000


def chosen(settings: Played, refs: Sequence[str]) -> list[tuple[Scenario, Task]]:
    """The tasks of the named sets as the stage wants them: from the checkouts it names, at most `max_tasks`, with or
    without what a benchmark wants said."""
    use_checkouts(settings.checkouts.model_dump())
    tasks = take(load_tasks(refs), settings.max_tasks)
    if getattr(settings, "outputs", "check") == "check":
        return tasks
    return [(scenario, without_outputs(task) if task.source in BENCHMARKS else task) for scenario, task in tasks]


def take(tasks: list[tuple[Scenario, Task]], most: int) -> list[tuple[Scenario, Task]]:
    """At most `most` tasks (0 = all), evenly spread over the list, so that every set is represented."""
    if not most or most >= len(tasks):
        return tasks
    return [tasks[i * len(tasks) // most] for i in range(most)]


def free_keys(in_process: bool) -> frozenset[str]:
    """Settings that may differ when a run is resumed. Where turns are generated in this process, `in_flight` decides
    the batches and with them the last bits, so there it may not."""
    return FREE_KEYS - {"in_flight"} if in_process else FREE_KEYS


def plan(settings: Rollout) -> dict[str, Any]:
    tasks = chosen(settings, settings.tasks)
    episodes = len(tasks) * settings.group
    return {
        "tasks": len(tasks),
        "episodes": episodes,
        "tokens": {"agent_at_most": episodes * settings.limits.max_turns * settings.limits.max_turn_tokens},
        "max_usd": settings.max_usd,
        "disk_mb": round(episodes * 0.012, 1),
    }


def run(settings: Rollout, out: Path, talk: Talker) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=free_keys(settings.in_process)) as folder:
        tasks = chosen(settings, settings.tasks)
        agents = open_agents(settings, out, talk)
        jobs = [
            job(folder.run_id, STAGE, 0, scenario, task, rollout, settings.seed)
            for scenario, task in tasks
            for rollout in range(settings.group)
        ]
        with EpisodeLog.open(out) as log:
            for line in log.report.lines():
                talk.warn(line)
            episodes = asyncio.run(play_all(jobs, agents, settings, out, log, talk))
        write_lineage(out, lineage_of(settings, folder, tasks, agents))
        families = {task.task_hash: task.family for _, task in tasks}
        scores = summarise(
            episodes,
            resamples=RESAMPLES,
            seed=settings.seed,
            writes=needs_write(tasks),
            families=families,
            planned=len(jobs),
        )
        talk.show(comparison_table({settings.agent: scores}, title="Scores of these rollouts").rich())
        summary = {"score": scores.headline(), "full": scores.to_json(), "artifact": artifact_hash(out)}
        code = ExitCode.OK if scores.complete else ExitCode.PARTIAL
        return folder.finish(summary) | {"exit_code": int(code)}


async def play_all(
    jobs: list[Job], agents: Agents, settings: Any, out: Path, log: EpisodeLog, talk: Talker
) -> list[Any]:
    """Play what is owed of `jobs`, with a progress line; all their episodes, in order."""
    users = Users(settings.user, settings.prices, settings.max_usd, out)
    judge = _judge(settings, out)
    player = Player(agents, users, limits_of(settings), settings.in_flight, log, around_of(settings), judge)
    owed, sentence = kept_owed([j.key.episode_id for j in jobs], log.done_ids())
    if len(owed) < len(jobs):
        talk.say(sentence)
    won = done = 0
    async with player:
        with talk.progress(len(jobs), "episodes") as bar:
            bar.watch(player.meter.figures)

            def count(episode: Any) -> None:
                nonlocal won, done
                done += episode.valid
                won += episode.reward == 1
                bar.advance(reward=round(won / max(1, done), 3))

            episodes = await player.run(jobs, count)
    for server in agents.unreachable:
        talk.warn(f"{server} did not answer when it was asked last; conversations went on without it")
    return episodes


def _judge(settings: Any, out: Path) -> AssertionJudge | None:
    """Who judges what tasks assert in words; None where the stage names nobody."""
    own = getattr(settings, "judge", None)
    if own is None or not own.model:
        return None
    flag = "--judge-base-url"
    return AssertionJudge(chat_model(own.model, own.base_url, settings.prices, settings.max_usd, out, flag=flag))


def lineage_of(settings: Any, folder: RunFolder, tasks: list[tuple[Scenario, Task]], agents: Agents) -> Lineage:
    """The lineage of episodes: which tasks, and which model played them."""
    parents = []
    if agents.in_process:
        from muarl_cli.records.checkpoint import resolve_model_path

        path = resolve_model_path(Path(settings.model), lambda line: None)
        parents.append((Parent("model", path.name, ""), read_lineage(path)))
    return Lineage.make(
        stage=folder.stage,
        run_id=folder.run_id,
        settings_hash=folder.settings_hash,
        seeds={"seed": settings.seed},
        parents=parents,
        tasks=[TaskMark.of(task) for _, task in tasks],
    )
