"""Whether a server file does what the pool relies on, tried out on the server itself.

Invariant: each check can fail, and says what was seen; a server that cannot be started is an error and not a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.pool import Pool
from muarl_cli.worlds.mcp.scenario import McpScenario, mcp_scenario, register, server_of
from muarl_cli.worlds.mcp.snapshots import changes, snapshot
from muarl_cli.worlds.scenario import Task

MOST_TASKS = 20
"""tasks of a split whose gold calls are played"""


@dataclass(frozen=True)
class Check:
    what: str
    passed: bool
    seen: str


@dataclass(frozen=True)
class Checks:
    """What was tried."""

    rows: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def lines(self) -> list[str]:
        return [f"{'ok' if row.passed else 'FAILS'}: {row.what}: {row.seen}" for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        return {row.what: {"passed": row.passed, "seen": row.seen} for row in self.rows}


def check_server(name: str) -> Checks:
    """Try the server of `mcp:NAME`, or of a file. Raises `MuarlError` where it cannot be read or started."""
    known = register(Path(name)) if Path(name).is_file() else server_of(name).name
    scenario = mcp_scenario(known)
    tools = scenario.tools
    rows = [Check("tools", True, ", ".join(tool.name for tool in tools))]
    rows.append(background().submit(_reset(scenario.pool)).result())
    rows += _gold(scenario)
    return Checks(tuple(rows))


async def _reset(pool: Pool) -> Check:
    """What an episode leaves behind is gone before the next one, and the snapshot is then the seed's."""
    process = await pool.lease(0)
    try:
        (process.folder / "left-behind.txt").write_text("from an earlier episode", encoding="utf-8")
        clean = pool.seed.lay(process.folder) and not (process.folder / "left-behind.txt").exists()
        moved = changes(pool.seed.tables, snapshot(pool.server.snapshot, process.folder), pool.server.snapshot)
    finally:
        pool.give_back(process)
    seen = f"{len(moved)} entities differ from the seed" if clean else "a file of an earlier episode is still there"
    return Check("reset", clean and not moved, seen)


def _gold(scenario: McpScenario) -> list[Check]:
    """The gold calls of some tasks are well formed, are carried out, and change something where they should."""
    splits = scenario.splits()
    if not splits:
        return []
    tasks = list(scenario.tasks(splits[0]))[:MOST_TASKS]
    bad = [f"{task.id}: {problem}" for task in tasks if (problem := _problem(scenario, task))]
    seen = bad[0] if bad else f"{len(tasks)} tasks of {splits[0]}"
    return [Check("gold calls", not bad, seen)]


def _problem(scenario: McpScenario, task: Task) -> str:
    box = Toolbox(scenario.tools)
    for call in task.gold:
        if problem := box.problem(ToolCall("check", call.name, call.arguments)):
            return problem
    try:
        gold = scenario.gold_fingerprint(task)
    except ValueError as error:
        return str(error)
    writes = any(box[call.name].klass is ToolClass.WRITE for call in task.gold)
    if writes and gold == scenario.pool.seed.fingerprint:
        return "its writes change nothing"
    return ""
