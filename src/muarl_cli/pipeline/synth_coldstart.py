"""The cold start: a teacher plays the agent, and the conversations that pass verification become demonstrations.

Invariant: which conversations are held, and which are accepted, depends on the settings alone; a verdict is stored for
every conversation, with its reason.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Agents, Talker, Users, chat_model
from muarl_cli.pipeline.play import FLUSH, Job, Player, job, limits_of, replaced_code, run_again
from muarl_cli.pipeline.queries import write_queries
from muarl_cli.pipeline.simulation import simulation_of
from muarl_cli.pipeline.verification import CARD_TEXT, Gate, write_card
from muarl_cli.records.journal import Journal
from muarl_cli.records.lineage import Lineage, TaskMark, write_lineage
from muarl_cli.records.log import EpisodeLog, artifact_hash
from muarl_cli.records.run import RunFolder
from muarl_cli.records.verdicts import write_verdicts
from muarl_cli.settings.models import FREE_KEYS, SynthColdstart
from muarl_cli.verification.card import refused_for
from muarl_cli.verification.coverage import by_coverage
from muarl_cli.worlds.catalog import DESCRIBED, scenario_of
from muarl_cli.worlds.domain import BUILTIN
from muarl_cli.worlds.mcp.scenario import SHIPPED, known_names
from muarl_cli.worlds.scenario import Scenario

STAGE = "synth-coldstart"
_OWN = [("builtin", name) for name in BUILTIN]
ORDER = (*_OWN[:-1], *(("mcp", name) for name in SHIPPED), _OWN[-1])
"""the printed order: `--scenarios N` takes the first N; the paper's five and four, then retail"""


def chosen(wanted: str) -> list[Scenario]:
    """The scenarios named by `--scenarios`; a number takes as many of the printed order as there are, and scenarios of
    server files come by name only."""
    if wanted.isdigit():
        return [scenario_of(*place) for place in ORDER[: int(wanted)]]
    known = {name: (source, name) for source, name in (*ORDER, *(("mcp", name) for name in known_names()))}
    names = wanted.split(",")
    known |= {name: (name, Path(name).stem) for name in names if name.endswith(DESCRIBED)}
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
        if settings.queries == "written":
            scenarios = asyncio.run(_written(settings, scenarios, out))
            talk.say("queries: " + ", ".join(f"{len(s.tasks(settings.split))} for {s.name}" for s in scenarios))
        with EpisodeLog.open(out) as log:
            for line in log.report.lines():
                talk.warn(line)
            gate = asyncio.run(_hold(settings, scenarios, out, folder.run_id, log, talk))
        verdicts, accepted = gate.verdicts, gate.accepted
        write_verdicts(out, verdicts)
        card = write_card(out, gate.held, verdicts, scenarios, settings.split)
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
        faults = sum(verdict["checks"]["ended"] == "fail" for verdict in verdicts.values())
        manners = Counter(str(e.agent["model"]) for e in accepted)
        summary: dict[str, Any] = {
            "accepted": len(accepted),
            "held": len(verdicts),
            "faults": faults,
            "acceptance": round(len(accepted) / max(1, len(verdicts)), 4),
            "accepted_by_scenario": dict(sorted(Counter(e.scenario for e in accepted).items())),
            "accepted_by_teacher": dict(sorted(manners.items())),
            "tasks": len(held),
            "refused_for": card["refused_for"],
            "artifact": artifact_hash(out),
        }
        if card["tools"]:
            summary["tools_disagree"] = card["tools"]
        if lapses := _lapses(Journal(out / LAPSES)):
            summary["teacher_lapses"] = lapses
        if manners["hasty"]:
            share = manners["hasty"] / len(accepted)
            summary["habit"] = (
                f"{share:.0%} of the accepted demonstrations write without asking: they reached the right state and "
                "broke the policy on the way"
            )
            talk.warn(summary["habit"])
        talk.say(f"what is in it: {out / CARD_TEXT}; next: muarl verify {out}, muarl sft --data {out}")
        return folder.finish(summary) | {"exit_code": int(replaced_code(faults, len(verdicts)))}


LAPSES = "lapses.jsonl"
"""replies of a teacher that could not be taken, as they were"""
RETRIES = 1
"""of a conversation that a fault ended: one passing trouble costs no task, a lasting one not many calls"""


def _teacher(settings: SynthColdstart, out: Path, lapses: Journal) -> Agents:
    own = settings.teacher
    if not own.model:
        return Agents(own.agent)
    from muarl_cli.agents.teacher import Teachers

    chat = chat_model(own.model, own.base_url, settings.prices, settings.max_usd, out, flag="--teacher-base-url")
    options = {"temperature": own.temperature, "max_turn_tokens": settings.limits.max_turn_tokens}
    return Agents("policy", fixed=Teachers(chat, record=lapses.add, **options), wires=[chat.wire])


async def _written(settings: SynthColdstart, scenarios: list[Scenario], out: Path) -> list[Scenario]:
    """The scenarios with queries of the teacher model as their tasks, more than are needed by a quarter."""
    own = settings.teacher
    each = math.ceil(1.25 * settings.count / len(scenarios))
    chat = chat_model(own.model, own.base_url, settings.prices, settings.max_usd, out, flag="--teacher-base-url")
    try:
        return await write_queries(scenarios, settings.split, each, chat, out, settings.seed)
    finally:
        await chat.wire.close()


def _lapses(journal: Journal) -> dict[str, int]:
    """How often the teacher lapsed, by kind. A conversation that was begun twice (a killed run) counts once."""
    rows = {(row["seed"], row["turn"], row["attempt"], row["lapse"]) for row in journal.rows()}
    return dict(sorted(Counter(str(row[-1]) for row in rows).items()))


def _jobs(settings: SynthColdstart, scenarios: list[Scenario], run_id: str) -> Iterator[Job]:
    """Tasks of all scenarios in turn; when a scenario's tasks are used up they come again as the next rollout."""
    number = 0
    arranged = by_coverage if settings.order == "coverage" else list
    tasks_of = {scenario.name: arranged(scenario.tasks(settings.split)) for scenario in scenarios}
    while True:
        for scenario in scenarios:
            tasks = tasks_of[scenario.name]
            rollout, place = divmod(number, len(tasks))
            yield job(run_id, STAGE, 0, scenario, tasks[place], rollout, settings.seed)
        number += 1


async def _played(player: Player, wave: list[Job], out: Path) -> list[Episode]:
    """The conversations of a wave; one that a fault ended is held once more. Raises `MuarlError` where all of them died
    of the same trouble outside."""
    episodes, _ = await run_again(player, wave, RETRIES)
    if all(episode.end.reason is EndReason.INFRA_FAULT for episode in episodes):
        raise MuarlError(
            f"all of {len(episodes)} conversations in a row ended in the same trouble",
            where=str(out),
            why=episodes[-1].end.detail,
            next_step="see to the address of the teacher and of the user, then run the same command again",
            code=ExitCode.TEMPORARY,
        )
    return episodes


async def _hold(
    settings: SynthColdstart, scenarios: list[Scenario], out: Path, run_id: str, log: EpisodeLog, talk: Talker
) -> Gate:
    users = Users(settings.user, settings.prices, settings.max_usd, out)
    lapses = Journal(out / LAPSES)
    around, simulation = simulation_of(settings, out)
    teacher = _teacher(settings, out, lapses)
    simulated = simulation is not None
    player = Player(teacher, users, limits_of(settings), settings.in_flight, log, around, remote_worlds=simulated)
    most = int(settings.count * settings.max_attempts)
    jobs = _jobs(settings, scenarios, run_id)
    gate = Gate(settings, out)
    kept = len(log)
    if kept:
        talk.say(f"kept {kept} conversations of the interrupted run")
    async with player:
        with talk.progress(settings.count, "accepted") as bar:
            bar.watch(player.meter.figures)
            while len(gate.accepted) < settings.count and len(gate.verdicts) < most:
                wave = [next(jobs) for _ in range(min(max(FLUSH, settings.in_flight), most - len(gate.verdicts)))]
                for work, episode in zip(wave, await _played(player, wave, out), strict=True):
                    if await gate.judge(episode, work.scenario, work.task):
                        bar.advance()
    await gate.close()
    if simulation is not None:
        await simulation.close()
    lapses.close()
    if len(gate.accepted) < settings.count:
        write_verdicts(out, gate.verdicts)
        most_frequent = ", ".join(f"{code} {n}" for code, n in list(refused_for(gate.verdicts).items())[:3])
        raise MuarlError(
            f"only {len(gate.accepted)} of {settings.count} demonstrations passed verification",
            where=str(out),
            why=f"{len(gate.verdicts)} conversations were held, the most that max_attempts={settings.max_attempts} "
            f"allows; refused most for: {most_frequent}",
            next_step="use a better teacher, or raise max_attempts (in a new folder)",
            code=ExitCode.BAD_DATA,
        )
    return gate
