"""Verification once more, from the log alone: what was accepted must pass the filters again.

Nothing is believed that the run said about itself: verdicts are made anew from `episodes.jsonl`, the scenario and the
task, and the calls are carried out again on fresh worlds, those of MCP scenarios on real server processes. Invariants:
log and verdicts are left as they are; an episode whose tools are not here has not passed, and is counted by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import Fault
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.verification import write_card
from muarl_cli.records.run import read_settings
from muarl_cli.reports.run_view import load_runs
from muarl_cli.verification.filters import Check, chain
from muarl_cli.verification.replay import carry_out_served, replay, state
from muarl_cli.verification.subject import Filter, Reason, Subject
from muarl_cli.verification.verify import verify
from muarl_cli.worlds.mcp.environments import installed
from muarl_cli.worlds.mcp.scenario import McpScenario, register

AT_ONCE = 8
"""episodes that are carried out again on servers at the same time: more than a pool has processes only wait"""
TRIES = 2
"""a server that breaks twice at the same calls is not broken by chance"""
NOT_INSTALLED = "not replayed: server not installed"
NO_TOOLS = "not replayed: its tools were a model"


def run(folder: Path, accept: str, benchmarks: bool = False) -> dict[str, Any]:
    """Verify all accepted episodes of a run again.

    `accept` names the filters, as the setting does; empty = those of the run. With `benchmarks` the card is written
    again, with the overlap with every benchmark that is installed. Returns counts (`accepted`,
    `passed`, `carried_out_again`, `not_verified`, `twice`), `not_replayed` (by scenario how many, and why) and `failed`
    (episode id to reasons). Raises `MuarlError` where there is nothing to verify.
    """
    settings = read_settings(folder) or {}
    if "accept" not in settings and not accept:
        raise MuarlError(
            "this is no folder of synth-coldstart",
            where=str(folder),
            next_step="name one, or say with --accept verified which filters are meant",
            code=ExitCode.MISSING_INPUT,
        )
    accept = accept or str(settings["accept"])
    for file in settings.get("mcp_servers", ()):
        if Path(file).is_file():
            register(Path(file))
    view = load_runs([folder])[0]
    chosen = [e for e in view.episodes if view.verdicts.get(e.episode_id, {}).get("accepted")]
    if not chosen:
        raise MuarlError("no episode was accepted", where=str(folder), code=ExitCode.MISSING_INPUT)
    checks = dict(chain(accept, int(settings.get("max_message_words", 1 << 30))))
    replaying = accept != "all"
    if replaying:
        checks |= {Filter.STATE: state, Filter.REPLAY: replay}
    subjects = [Subject(episode, *view.tasks.get(episode.task_hash, (None, None))) for episode in chosen]
    unverified: dict[str, str] = {}
    broken: dict[str, Reason] = {}
    if replaying:
        unverified = {s.episode.episode_id: NOT_INSTALLED for s in subjects if _without_server(s)}
        subjects = [s for s in subjects if s.episode.episode_id not in unverified]
        subjects, broken = asyncio.run(_carried_out(subjects))
    failed: dict[str, tuple[Reason, ...]] = {}
    believed: dict[str, str] = {}
    for subject in subjects:
        key = subject.episode.episode_id
        if reasons := _reasons(subject, checks, broken.get(key)):
            failed[key] = reasons
        elif replaying and subject.replayed is None:
            believed[key] = NO_TOOLS
    if benchmarks:
        scenarios = {f"{s.source}:{s.name}": s for s, _ in view.tasks.values()}
        write_card(
            folder,
            view.episodes,
            view.verdicts,
            [scenarios[name] for name in sorted(scenarios)],
            settings["split"],
            True,
        )
    names = {e.episode_id: e.scenario for e in chosen}
    left = Counter((names[key], why) for key, why in (unverified | believed).items())
    ids = Counter(e.episode_id for e in view.episodes)
    return {
        "filters": [f.value for f in checks],
        "accepted": len(chosen),
        "passed": len(subjects) - len(failed),
        "carried_out_again": sum(s.task is not None and s.replayed is not None for s in subjects) if replaying else 0,
        "not_verified": len(unverified),
        "not_replayed": {name: {"episodes": n, "why": why} for (name, why), n in sorted(left.items())},
        "refused_for": dict(sorted(Counter(r for row in failed.values() for r in {x.key for x in row}).items())),
        "twice": sum(n - 1 for n in ids.values()),
        "failed": {key: [str(reason) for reason in reasons] for key, reasons in failed.items()},
    }


def _without_server(subject: Subject) -> bool:
    """Whether the tools of its scenario are on a server that is not installed here."""
    return isinstance(subject.scenario, McpScenario) and not installed(subject.scenario.server)


def _reasons(subject: Subject, checks: Mapping[Filter, Check], broken: Reason | None) -> tuple[Reason, ...]:
    if subject.task is None:
        return (Reason(Filter.STATE, "no_task", f"the task {subject.episode.task_id} is not known here"),)
    return (broken,) if broken else verify(subject, checks).reasons


async def _carried_out(subjects: Sequence[Subject]) -> tuple[list[Subject], dict[str, Reason]]:
    """The subjects, those of MCP scenarios with their calls carried out again on real servers; and, by episode id, why
    that was not possible for some of them."""
    room = asyncio.Semaphore(AT_ONCE)
    broken: dict[str, Reason] = {}

    async def one(subject: Subject) -> Subject:
        if subject.simulated or not isinstance(subject.scenario, McpScenario):
            return subject
        async with room:
            for _ in range(TRIES):
                try:
                    return replace(subject, again=await carry_out_served(subject))
                except Fault as fault:
                    why = str(fault)
        broken[subject.episode.episode_id] = Reason(Filter.REPLAY, "server_broke", why)
        return subject

    return list(await asyncio.gather(*(one(subject) for subject in subjects))), broken
