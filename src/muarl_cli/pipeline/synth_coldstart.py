"""The cold start: a teacher plays the agent, and the conversations that pass verification become demonstrations.

Invariant: which conversations are held, and which are accepted, depends on the settings alone; a verdict is stored for
every conversation, with its reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Agents, Talker, Users, chat_model
from muarl_cli.pipeline.play import FLUSH, Job, Player, job, limits_of
from muarl_cli.records.lineage import Lineage, TaskMark, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.records.verdicts import write_verdicts
from muarl_cli.settings.models import FREE_KEYS, SynthColdstart
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.domain import BUILTIN
from muarl_cli.worlds.mcp.scenario import SHIPPED, known_names
from muarl_cli.worlds.scenario import Scenario

STAGE = "synth-coldstart"
ORDER = (*(("builtin", name) for name in BUILTIN), *(("mcp", name) for name in SHIPPED))
"""the printed order: `--scenarios N` takes the first N"""


def chosen(wanted: str) -> list[Scenario]:
    """The scenarios named by `--scenarios`; a number takes as many of the printed order as there are, and scenarios of
    server files come by name only."""
    if wanted.isdigit():
        return [scenario_of(*place) for place in ORDER[: int(wanted)]]
    known = {name: (source, name) for source, name in (*ORDER, *(("mcp", name) for name in known_names()))}
    names = wanted.split(",")
    if unknown := [name for name in names if name not in known]:
        raise MuarlError(
            f"unknown scenario {unknown[0]!r}", next_step=f"in this order: {', '.join(known)}", code=ExitCode.USAGE
        )
    return [scenario_of(*known[name]) for name in names]


def plan(settings: SynthColdstart) -> dict[str, Any]:
    scenarios = chosen(settings.scenarios)
    return {
        "scenarios": [f"{s.source}:{s.name}" for s in scenarios],
        "tasks": {s.name: len(s.tasks(settings.split)) for s in scenarios},
        "episodes": {"at_least": settings.count, "at_most": int(settings.count * settings.max_attempts)},
        "tokens": {"agent": settings.count * 250, "user": settings.count * 100} if settings.teacher.model else {},
        "disk_mb": round(settings.count * 0.006, 1),
    }


def run(settings: SynthColdstart, out: Path, talk: Talker) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=FREE_KEYS) as folder:
        scenarios = chosen(settings.scenarios)
        if settings.scenarios.isdigit() and int(settings.scenarios) > len(scenarios):
            talk.say(f"{settings.scenarios} scenarios asked for, {len(scenarios)} are there")
        # asking for the tools starts the servers of those that have one, and says now what is not installed
        talk.say("scenarios: " + ", ".join(f"{s.name} ({len(s.tools)} tools)" for s in scenarios))
        with EpisodeLog.open(out) as log:
            for line in log.report.lines():
                talk.warn(line)
            verdicts, accepted = asyncio.run(_hold(settings, scenarios, out, folder.run_id, log, talk))
        write_verdicts(out, verdicts)
        marks = [TaskMark.of(task) for s in scenarios for task in s.tasks(settings.split)]
        held = {e.task_hash for e in accepted}
        write_lineage(
            out,
            Lineage.make(
                stage=STAGE,
                run_id=folder.run_id,
                settings_hash=folder.settings_hash,
                seeds={"seed": settings.seed},
                tasks=[mark for mark in marks if mark.task_hash in held],
            ),
        )
        manners = Counter(str(e.agent["model"]) for e in accepted)
        summary: dict[str, Any] = {
            "accepted": len(accepted),
            "held": len(verdicts),
            "acceptance": round(len(accepted) / max(1, len(verdicts)), 4),
            "accepted_by_scenario": dict(sorted(Counter(e.scenario for e in accepted).items())),
            "accepted_by_teacher": dict(sorted(manners.items())),
            "tasks": len(held),
            "artifact": artifact_hash(out),
        }
        if manners["hasty"]:
            share = manners["hasty"] / len(accepted)
            summary["habit"] = (
                f"{share:.0%} of the accepted demonstrations write without asking: they reached the right state and "
                "broke the policy on the way"
            )
            talk.warn(summary["habit"])
        talk.say(f"next: muarl sft --data {out}")
        return folder.finish(summary)


def _teacher(settings: SynthColdstart, out: Path) -> Agents:
    own = settings.teacher
    if not own.model:
        return Agents(own.agent)
    from muarl_cli.agents.openai_chat import OpenAIAgents

    chat = chat_model(own.model, own.base_url, settings.prices, settings.max_usd, out)
    agents = OpenAIAgents(chat, temperature=own.temperature, max_turn_tokens=settings.limits.max_turn_tokens)
    return Agents("policy", fixed=agents, wires=[chat.wire])


def _jobs(settings: SynthColdstart, scenarios: list[Scenario], run_id: str) -> Iterator[Job]:
    """Tasks of all scenarios in turn; when a scenario's tasks are used up they come again as the next rollout."""
    number = 0
    while True:
        for scenario in scenarios:
            tasks = scenario.tasks(settings.split)
            rollout, place = divmod(number, len(tasks))
            yield job(run_id, STAGE, 0, scenario, tasks[place], rollout, settings.seed)
        number += 1


async def _hold(
    settings: SynthColdstart, scenarios: list[Scenario], out: Path, run_id: str, log: EpisodeLog, talk: Talker
) -> tuple[dict[str, dict[str, Any]], list[Episode]]:
    users = Users(settings.user, settings.prices, settings.max_usd, out)
    player = Player(_teacher(settings, out), users, limits_of(settings), settings.in_flight, log)
    most = int(settings.count * settings.max_attempts)
    jobs = _jobs(settings, scenarios, run_id)
    verdicts: dict[str, dict[str, Any]] = {}
    accepted: list[Episode] = []
    kept = len(log)
    if kept:
        talk.say(f"kept {kept} conversations of the interrupted run")
    async with player:
        with talk.progress(settings.count, "accepted") as bar:
            while len(accepted) < settings.count and len(verdicts) < most:
                wave = [next(jobs) for _ in range(min(max(FLUSH, settings.in_flight), most - len(verdicts)))]
                for episode in await player.run(wave):
                    verdict = _verdict(settings, episode, len(accepted))
                    verdicts[episode.episode_id] = verdict
                    if verdict["accepted"]:
                        accepted.append(episode)
                        bar.advance()
    if len(accepted) < settings.count:
        raise MuarlError(
            f"only {len(accepted)} of {settings.count} demonstrations passed verification",
            where=str(out),
            why=f"{len(verdicts)} conversations were held, the most that max_attempts={settings.max_attempts} allows",
            next_step="use a better teacher, or raise max_attempts (in a new folder)",
            code=ExitCode.BAD_DATA,
        )
    return verdicts, accepted


def _verdict(settings: SynthColdstart, episode: Episode, accepted: int) -> dict[str, Any]:
    reasons = []
    if not episode.valid:
        reasons.append(f"invalid: {episode.end.reason.value}")
    elif settings.accept == "outcome" and episode.reward != 1:
        reasons.append("outcome: the end state is not the gold one")
    elif accepted >= settings.count:
        reasons.append("enough: the wanted count was reached")
    layers = {"outcome": None if episode.reward is None else "pass" if episode.reward == 1 else "fail"}
    return {"accepted": not reasons, "layers": layers, "reasons": reasons}
