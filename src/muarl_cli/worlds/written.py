"""Tasks whose queries a language model wrote, over a scenario that is there already.

A file of queries (`queries.jsonl`: instruction, persona, reference calls, one a line) is a source of its own: its
scenarios have the policy, the tools and the world of those they were written for, and users who play from the
instruction. Invariant: a query is only in the file if its reference calls went through on the executable tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.journal import Journal
from muarl_cli.worlds.memory import Tables
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task


class Written:
    """The tasks of one scenario in a file of queries; see `Scenario` for the members' meaning."""

    def __init__(self, source: str, base: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        self.source, self.base = source, base
        self.name, self.policy, self.compact = base.name, base.policy, base.compact
        self.greeting, self.tools, self.agent_may_stop = base.greeting, base.tools, base.agent_may_stop
        self.rules: Sequence[Mapping[str, Any]] | None = getattr(base, "rules", None)
        self.schema = getattr(base, "schema", {})
        self._tasks = tuple(self._task(row) for row in rows)

    def _task(self, row: Mapping[str, Any]) -> Task:
        classes = {tool.name: tool.klass for tool in self.tools}
        gold = tuple(GoldCall(call["name"], dict(call["arguments"])) for call in row["calls"])
        return Task(
            id=str(row["id"]),
            source=self.source,
            scenario=self.name,
            split=str(row["split"]),
            family="+".join(sorted(call.name for call in gold)),
            brief={"instruction": row["instruction"], "persona": row.get("persona", "")},
            initial=dict(row["initial"]),
            gold=gold,
            gold_writes=tuple(call for call in gold if classes[call.name] is ToolClass.WRITE),
        )

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task.split for task in self._tasks))

    def tasks(self, split: str) -> Sequence[Task]:
        return [task for task in self._tasks if task.split == split]

    def world(self, task: Task) -> Any:
        return self.base.world(task)

    def memory(self, task: Task, seed: int) -> Tables:
        found: Tables = self.base.memory(task, seed)
        return found

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        found: Outcome = self.base.outcome(task, world, events)
        return found

    def user_prompt(self, task: Task) -> str:
        persona = task.brief["persona"]
        return f"{task.brief['instruction']}" + (f"\n\nWho you are: {persona}" if persona else "")

    @property
    def policy_hash(self) -> str:
        return str(self.base.policy_hash)


@lru_cache(maxsize=64)
def written(path: str, name: str) -> Written:
    """The scenario of this name in a file of queries; raises `MuarlError` where there is none."""
    from muarl_cli.worlds.catalog import scenario_of

    rows = [row for row in Journal(Path(path)).rows() if row.get("scenario", ":").split(":")[1] == name]
    if not rows:
        raise MuarlError(
            f"no query of {name!r}",
            where=path,
            next_step="name the file that synth-coldstart wrote, from the folder it was started in",
            code=ExitCode.MISSING_INPUT,
        )
    source, _, _ = str(rows[0]["scenario"]).partition(":")
    return Written(path, scenario_of(source, name), rows)
