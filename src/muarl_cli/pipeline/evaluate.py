"""Evaluation: trials of every task of a set, scored with intervals, beside the floors, never on what was trained on.

Invariant: a score never stands alone. Beside it stand its interval, pass^k, the do-nothing and transfer-only floors,
the write-task rate, and both denominators; and where tasks were seen in training, that too, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.acebench_package import use_checkout
from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Agents, Talker, Users, needs_write
from muarl_cli.pipeline.play import Job, Player, job, limits_of
from muarl_cli.pipeline.policy import open_agents
from muarl_cli.pipeline.rollout import chosen, free_keys, lineage_of, play_all
from muarl_cli.pipeline.surroundings import around_of
from muarl_cli.records.files import replace_file
from muarl_cli.records.lineage import overlap, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash, iter_episodes
from muarl_cli.records.run import RunFolder
from muarl_cli.reports.layer_tables import summary_layers
from muarl_cli.reports.tables import comparison_table, ends_table
from muarl_cli.scoring.rescore import by_label, rescore
from muarl_cli.scoring.statistics import holm
from muarl_cli.scoring.summary import Comparison, ScoreSummary, by_user, compare, summarise
from muarl_cli.settings.models import Eval
from muarl_cli.worlds.scenario import Scenario, Task

STAGE = "eval"
FLOORS = {"do_nothing": "do-nothing", "transfer_only": "transfer-only"}
PAPER_DOMAINS = {
    "tau2": ("retail", "airline", "telecom"),
    "tau1": ("retail", "airline"),
    "bfcl": ("base", "miss_func", "miss_param", "long_context"),
    "acebench": ("multi_turn", "multi_step"),
}
"""domains of each benchmark that the paper reports"""
LEADERBOARD = {"tau2": "base", "tau1": "test", "bfcl": "v3", "acebench": "en"}
"""the split that `--bench` means: the one that the paper reports"""


def task_refs(settings: Eval) -> list[str]:
    """The task sets that are evaluated: a benchmark's, or `tasks`. Takes the checkouts that the settings name."""
    use_checkout(settings.acebench_dir)
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
    tasks = chosen(settings, task_refs(settings))
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
        tasks = chosen(settings, task_refs(settings))
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
        official, files = _official(tasks, out, settings)
        lineage = lineage_of(settings, folder, tasks, agents)
        write_lineage(out, lineage)
        name = name_of(settings)
        floors = {(name, floor): _compare(settings, scores[floor], scores[name]) for floor in FLOORS if floor in scores}
        note = (f"{len(seen)} of these tasks were trained on: this is no held-out score",) if seen else ()
        if note:
            talk.warn(note[0])
        table = comparison_table(scores, floors)
        talk.show(replace(table, notes=(*table.notes, *note)).rich())
        talk.show(ends_table(scores[name]).rich())
        stages = {f"{STAGE}/{agent}": floor for floor, agent in FLOORS.items()} | {STAGE: name}
        layers = by_label(rescore(out, resamples=settings.bootstrap, seed=settings.seed), stages)
        talk.show(summary_layers(layers).rich())
        summary: dict[str, Any] = {
            "tasks": len(tasks),
            "scores": {label: score.headline() for label, score in scores.items()},
            "full": {label: score.to_json() for label, score in scores.items()},
            "differences": _corrected(floors),
            "users": by_user(own_episodes(out), resamples=settings.bootstrap, seed=settings.seed),
            "layers": layers,
            "overlap": seen,
            "official": official,
            "official_files": files,
            "artifact": artifact_hash(out),
        }
        for own, found in official.items():
            figures = (f"{key.replace('_', ' ')} {v:.3f}" for key, v in found.items() if isinstance(v, float))
            talk.say(f"{own}, {' '.join(found['revision'].values())}: {', '.join(figures)}")
            if found.get("unjudged"):
                talk.warn(
                    f"{own}: nobody judged the words of {found['unjudged']} episodes; their score is over the rest"
                )
        code = ExitCode.OK if all(score.complete for score in scores.values()) else ExitCode.PARTIAL
        return folder.finish(summary) | {"exit_code": int(code)}


def own_episodes(out: Path) -> list[Episode]:
    """The agent's own episodes, without those of the floors."""
    return [episode for episode in iter_episodes(out) if episode.stage == STAGE]


def _corrected(floors: Mapping[tuple[str, str], Comparison]) -> dict[str, dict[str, Any]]:
    """The paired differences by name, their p-values corrected over all of them."""
    named = {f"{after}_minus_{before}": c.difference for (after, before), c in floors.items()}
    corrected = holm({name: difference.p for name, difference in named.items()})
    return {name: difference.to_json() | {"p_holm": corrected[name]} for name, difference in named.items()}


def name_of(settings: Eval) -> str:
    """What the evaluated agent is called in tables."""
    return "policy" if settings.agent == "policy" else settings.agent


def _official(
    tasks: list[tuple[Scenario, Task]], out: Path, settings: Eval
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What the benchmarks themselves say of the agent's episodes, by scenario, and the names below `official/` of the
    result files that their own evaluators read."""
    agent = Path(settings.model).name if settings.agent == "policy" else settings.agent
    said, written = {}, []
    found: dict[int, Any] = {id(scenario): scenario for scenario, _ in tasks}
    for scenario in found.values():
        if not hasattr(scenario, "official_summary"):
            continue
        own = f"{scenario.source}:{scenario.name}"
        mine = [episode for episode in own_episodes(out) if episode.scenario == own]
        said[own] = scenario.official_summary(mine)
        for name, data in scenario.official_files(mine, agent).items():
            place = out / "official" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, data)
            written.append(name)
    return said, written


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

    # the agent first: a key that is missing or an address that is down is then said before anything is played
    own = score(await play_all(jobs, agents, settings, out, log, talk), len(jobs))
    scores = {}
    if settings.floors and settings.agent not in FLOORS.values():
        offline = settings.user.model_copy(update={"backend": "scripted"})  # a floor must cost nothing
        for label, agent in FLOORS.items():
            users = Users(offline, settings.prices, settings.max_usd, out)
            floor = [job(run_id, f"{STAGE}/{agent}", 0, scenario, task, 0, settings.seed) for scenario, task in tasks]
            player = Player(Agents(agent), users, limits_of(settings), settings.in_flight, log, around_of(settings))
            scores[label] = score(await player.run(floor), len(floor))
    return scores | {name_of(settings): own}


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
    hard = [o for o in found if o.refuses]
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
