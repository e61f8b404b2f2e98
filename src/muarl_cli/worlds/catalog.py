"""Where task sets come from: `source:scenario:split`, or one task as `source:scenario:split:id`.

Invariant: a source that is not installed is an error that says how to get it, never an empty task set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.scenario import Scenario, Task

SOURCES = ("builtin", "tau2")
PLANNED = ("mcp", "tau1", "bfcl", "acebench")


@dataclass(frozen=True)
class TaskRef:
    """A parsed task-set reference."""

    source: str
    scenario: str
    split: str
    task_id: str = ""


def parse_ref(text: str) -> TaskRef:
    """`source:scenario:split[:id]`; raises `MuarlError` for any other form."""
    parts = text.split(":", 3)
    if len(parts) < 3 or not all(parts[:3]):
        raise MuarlError(
            f"{text!r} is not a task set",
            why="a task set is written source:scenario:split, one task source:scenario:split:id",
            next_step="for example builtin:retail:test or tau2:retail:test",
            code=ExitCode.USAGE,
        )
    return TaskRef(*parts)


def scenario_of(source: str, name: str) -> Scenario:
    """The scenario of this name from this source."""
    if source == "builtin":
        from muarl_cli.worlds.domain import builtin

        return builtin(name)
    if source == "tau2":
        from muarl_cli.benchmarks.tau2 import tau2_scenario

        return tau2_scenario(name)
    known = "is not there yet" if source in PLANNED else "is unknown"
    raise MuarlError(
        f"the source {source!r} {known}", next_step=f"use one of {', '.join(SOURCES)}", code=ExitCode.USAGE
    )


def load_tasks(refs: Sequence[str]) -> list[tuple[Scenario, Task]]:
    """All tasks of the given sets, in the order given; a task that is named twice comes once."""
    found: dict[tuple[str, str, str], tuple[Scenario, Task]] = {}
    for text in refs:
        ref = parse_ref(text)
        scenario = scenario_of(ref.source, ref.scenario)
        tasks = [t for t in scenario.tasks(ref.split) if not ref.task_id or t.id == ref.task_id]
        if not tasks:
            raise MuarlError(f"no task {ref.task_id!r} in {ref.source}:{ref.scenario}:{ref.split}", code=ExitCode.USAGE)
        for task in tasks:
            found.setdefault((task.source, task.scenario, task.id), (scenario, task))
    return list(found.values())
