"""Where task sets come from: `source:scenario:split`, or one task as `source:scenario:split:id`.

Invariant: a source that is not installed is an error that says how to get it, never an empty task set.
"""

from __future__ import annotations

from collections.abc import Sequence

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.grammar import parse_task_ref
from muarl_cli.worlds.scenario import Scenario, Task

SOURCES = ("builtin", "mcp", "tau2")
PLANNED = ("tau1", "bfcl", "acebench")


def scenario_of(source: str, name: str) -> Scenario:
    """The scenario of this name from this source."""
    if source == "builtin":
        from muarl_cli.worlds.domain import builtin

        return builtin(name)
    if source == "mcp":
        from muarl_cli.worlds.mcp.scenario import mcp_scenario

        return mcp_scenario(name)
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
        ref = parse_task_ref(text)
        scenario = scenario_of(ref.source, ref.scenario)
        tasks = [t for t in scenario.tasks(ref.split) if not ref.id or t.id == ref.id]
        if not tasks:
            raise MuarlError(f"no task {ref.id!r} in {ref.source}:{ref.scenario}:{ref.split}", code=ExitCode.USAGE)
        for task in tasks:
            found.setdefault((task.source, task.scenario, task.id), (scenario, task))
    return list(found.values())
