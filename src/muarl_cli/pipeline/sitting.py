"""One conversation with a person at the terminal, written down like any other.

It is a rollout of one task with one party played by hand: same loop, same log, same scorer. Invariant: a run folder
holds one sitting; the same folder again says what became of it and plays nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline import rollout
from muarl_cli.pipeline.parties import Talker, Users
from muarl_cli.pipeline.play import Job, Player, job, limits_of
from muarl_cli.pipeline.policy import open_agents
from muarl_cli.records.lineage import write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.settings.models import Rollout
from muarl_cli.worlds.catalog import load_tasks, scenario_of

DEFAULT_SPLITS = ("dev", "train", "base")
"""the first of these that a scenario has is played where no split is named; never test by default"""


def task_ref(scenario: str, split: str, task: str, seed: int) -> str:
    """The reference of the task to play: `scenario` is a built-in name or source:name; without a task id, one is drawn
    by the seed. Raises `MuarlError` for what does not exist."""
    source, _, name = scenario.rpartition(":")
    source = source or "builtin"
    found = scenario_of(source, name)
    splits = found.splits()
    split = split or next((s for s in DEFAULT_SPLITS if s in splits), splits[0])
    tasks = found.tasks(split)
    if not task:
        task = tasks[derive_seed(seed, "sitting") % len(tasks)].id
    elif task not in {t.id for t in tasks}:
        raise MuarlError(
            f"no task {task!r} in {source}:{name}:{split}",
            next_step=f"for example {tasks[0].id}, or another --split ({', '.join(splits)})",
            code=ExitCode.USAGE,
        )
    return f"{source}:{name}:{split}:{task}"


def free_folder(runs: Path) -> Path:
    """The first `runs/play-N` that is not there yet."""
    number = 1
    while (folder := runs / f"play-{number}").exists():
        number += 1
    return folder


def run(settings: Rollout, out: Path, talk: Talker) -> dict[str, Any]:
    """Play the one task of `settings`; the result says how it ended. Raises `MuarlError`."""
    free = rollout.free_keys(settings.in_process)
    with RunFolder.open(out, rollout.STAGE, settings.model_dump(mode="json"), free=free) as folder:
        ((scenario, task),) = load_tasks(settings.tasks)
        agents = open_agents(settings, out, talk)
        users = Users(settings.user, settings.prices, settings.max_usd, out)
        with EpisodeLog.open(out) as log:
            player = Player(agents, users, limits_of(settings), 1, log)
            work = job(folder.run_id, rollout.STAGE, 0, scenario, task, 0, settings.seed)
            if work.key.episode_id in log.done_ids():
                talk.say(f"{out} holds this conversation already; give another --out or --seed to play again")
            episode = asyncio.run(_play(player, work))
        write_lineage(out, rollout.lineage_of(settings, folder, [(scenario, task)], agents))
        summary = {
            "task": str(settings.tasks[0]),
            "end": episode.end.reason.value,
            "detail": episode.end.detail,
            "valid": episode.valid,
            "reward": episode.reward,
            "turns": episode.usage["turns"],
            "episode": episode.episode_id,
            "out": str(out),
            "artifact": artifact_hash(out),
        }
        talk.say(f"ended: {summary['end']}, reward {'none' if episode.reward is None else episode.reward}")
        code = ExitCode.OK if episode.valid else ExitCode.PARTIAL
        return folder.finish(summary) | {"exit_code": int(code)}


async def _play(player: Player, work: Job) -> Episode:
    async with player:
        (episode,) = await player.run([work])
        return episode
