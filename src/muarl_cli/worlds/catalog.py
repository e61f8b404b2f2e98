"""Where task sets come from: `source:scenario:split`, or one task as `source:scenario:split:id`.

Invariant: a source that is not installed is an error that says how to get it, never an empty task set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.grammar import parse_task_ref
from muarl_cli.worlds.scenario import Scenario, Task

SOURCES = ("builtin", "mcp", "tau2", "tau1", "bfcl", "acebench")
DESCRIBED = (".yaml", ".yml", ".json")
"""a source that is a file: a scenario that is only described (`worlds.described`)"""
QUERIES = ".jsonl"
"""a source that is a file of queries which a model wrote (`worlds.written`)"""


def scenario_of(source: str, name: str) -> Scenario:
    """The scenario of this name from this source."""
    if source == "builtin":
        from muarl_cli.worlds.domain import builtin

        return builtin(name)
    if source == "mcp":
        from muarl_cli.worlds.mcp.scenario import mcp_scenario

        return mcp_scenario(name)
    if source == "tau2":
        from muarl_cli.benchmarks.tau2_sources import tau2_source

        return tau2_source(name)
    if source == "tau1":
        from muarl_cli.benchmarks.tau1 import tau1_scenario

        return tau1_scenario(name)
    if source == "bfcl":
        from muarl_cli.benchmarks.bfcl import bfcl_scenario

        return bfcl_scenario(name)
    if source == "acebench":
        from muarl_cli.benchmarks.acebench import acebench_scenario

        return acebench_scenario(name)
    if source.endswith(QUERIES):
        from muarl_cli.worlds.written import written

        return written(source, name)
    if source.endswith(DESCRIBED):
        from muarl_cli.worlds.described import described

        return described(source)
    if (Path(source) / "shapes.jsonl").exists():
        from muarl_cli.worlds.imported import imported

        return imported(source, name)
    raise MuarlError(
        f"the source {source!r} is unknown", next_step=f"use one of {', '.join(SOURCES)}", code=ExitCode.USAGE
    )


def load_tasks(refs: Sequence[str]) -> list[tuple[Scenario, Task]]:
    """All tasks of the given sets, in the order given; a task that is named twice comes once. Splits may use one id for
    different tasks (TAU1's train and test, ACEBench's languages), so the hash is part of what names a task."""
    found: dict[tuple[str, str, str, str], tuple[Scenario, Task]] = {}
    for text in refs:
        ref = parse_task_ref(text)
        scenario = scenario_of(ref.source, ref.scenario)
        tasks = [t for t in scenario.tasks(ref.split) if not ref.id or t.id == ref.id]
        if not tasks:
            known = scenario.tasks(ref.split)
            raise MuarlError(
                f"no task {ref.id!r} in {ref.source}:{ref.scenario}:{ref.split}",
                next_step=f"ids go from {known[0].id} to {known[-1].id}"
                if known
                else "the split is empty; name another",
                code=ExitCode.USAGE,
            )
        for task in tasks:
            found.setdefault((task.source, task.scenario, task.id, task.task_hash), (scenario, task))
    return list(found.values())


def task_sets(
    source: str, names: Sequence[str], splits: Sequence[str] = ()
) -> Iterator[tuple[str, Scenario, Sequence[Task]]]:
    """Every task set of these scenarios of a source, by its name: all splits unless some are named. A part that is not
    installed is left out."""
    for name in names:
        try:
            scenario = scenario_of(source, name)
            for split in splits or scenario.splits():
                yield f"{source}:{name}:{split}", scenario, scenario.tasks(split)
        except (MuarlError, ImportError, OSError):
            continue
