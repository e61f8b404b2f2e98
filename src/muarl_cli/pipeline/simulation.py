"""Pipeline A: a model plays the tools of a scenario, and what it says is held against the tools where there are any."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import World
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.parties import chat_model
from muarl_cli.pipeline.play import Around, Job
from muarl_cli.settings.models import SynthColdstart
from muarl_cli.users.state import render
from muarl_cli.verification.disagreement import compared, rate
from muarl_cli.verification.subject import Subject
from muarl_cli.worlds.memory import Tables

EXAMPLES = 2
"""real answers of each tool in the prompt, so that the form of a simulated one is the tool's"""
LOOKED_AT = 60
"""tasks whose reference paths give the examples"""


class Simulation:
    """The tool model of a run, as something around its worlds."""

    def __init__(self, settings: SynthColdstart, folder: Path) -> None:
        own = settings.tool
        self._chat = chat_model(
            own.model, own.base_url, settings.prices, settings.max_usd, folder, flag="--tool-base-url"
        )
        self._temperature, self._split = own.temperature, settings.split

    def around(self, job: Job, world: World) -> World:
        """The world of a job, with its reads and writes played by the model."""
        from muarl_cli.worlds.simulated import SimulatedWorld

        scenario: Any = job.scenario
        if not hasattr(scenario, "memory"):
            raise MuarlError(
                f"the tools of {scenario.source}:{scenario.name} cannot be simulated",
                why="it has no database that a model could answer from",
                next_step="leave tools=executable there",
                code=ExitCode.CONFIG,
            )
        examples = _examples(scenario, self._split)

        def prompt(tool: ToolSpec, memory: Tables, schema: Mapping[str, Any]) -> str:
            return render(
                "tool.jinja",
                tool=json.dumps(tool.openai()["function"], indent=1),
                policy=scenario.policy,
                memory=json.dumps(memory),
                schema=json.dumps(schema),
                examples=examples.get(tool.name, []),
            )

        seed = derive_seed(job.key.seed, "tools")
        return SimulatedWorld(
            world.tools,
            scenario.memory(job.task, seed),
            scenario.schema,
            self._chat,
            prompt,
            seed=seed,
            temperature=self._temperature,
            real=world if getattr(scenario, "executable", True) else None,
        )

    async def close(self) -> None:
        await self._chat.wire.close()


def simulation_of(settings: SynthColdstart, folder: Path) -> tuple[Around | None, Simulation | None]:
    """What stands around the worlds of a run: nothing where its tools are executed."""
    if settings.tools == "executable":
        return None, None
    simulation = Simulation(settings, folder)
    return simulation.around, simulation


def disagreement(episodes: Iterable[Episode], known: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """By scenario, how often a simulated answer differs from the tool's, with its interval; from the log alone.

    `known` maps a task hash to (scenario, task). Scenarios in which nothing was simulated are left out.
    """
    counts: dict[str, list[tuple[int, int]]] = {}
    for episode in episodes:
        scenario, task = known.get(episode.task_hash, (None, None))
        if scenario is None or (found := compared(Subject(episode, scenario, task))) is None:
            continue
        counts.setdefault(episode.scenario, []).append(found)
    return {name: {"conversations": len(rows), **rate(rows).to_json()} for name, rows in sorted(counts.items())}


@cache
def _examples(scenario: Any, split: str) -> dict[str, list[str]]:
    """By tool, a few calls and what the executable tool answered; none where it cannot be executed."""
    found: dict[str, list[str]] = {}
    for task in scenario.tasks(split)[-LOOKED_AT:]:
        world = scenario.world(task)
        for call in task.gold if hasattr(world, "run") else ():
            result = world.run(call.name, call.arguments)
            lines = found.setdefault(call.name, [])
            if len(lines) < EXAMPLES:
                form = "answer" if result.ok else "error"
                lines.append(f"{json.dumps(dict(call.arguments))} -> {json.dumps({form: result.text})}")
    return found
