"""The MCP scenarios of the package: as data without any server, and (slow) on the real ones from the registry."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fakes.goal_words import values_said, words_around

from muarl_cli.cli.app import main
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.errors import MuarlError
from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.findings import Verdict
from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import said
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.environments import install
from muarl_cli.worlds.mcp.scenario import SHIPPED, McpScenario, mcp_scenario
from muarl_cli.worlds.mcp.snapshots import fingerprint, snapshot
from muarl_cli.worlds.scenario import Task

each_scenario = pytest.mark.parametrize("name", SHIPPED)


CACHE = os.environ.get("MUARL_TEST_CACHE", "")
"""read before the environment of tests is cleaned"""


@cache
def every_task(name: str) -> tuple[Task, ...]:
    scenario = mcp_scenario(name)
    return tuple(task for split in scenario.splits() for task in scenario.tasks(split))


@each_scenario
def test_at_least_500_tasks_in_12_intents_and_no_family_over_15_percent(name: str) -> None:
    tasks = every_task(name)
    intents = Counter(goal.intent for task in tasks for goal in goals_of(task.brief))
    assert len(tasks) >= 500
    assert len(intents) >= 12 and set(intents) == set(mcp_scenario(name).language.intents)
    assert max(intents.values()) <= 0.15 * sum(intents.values())
    assert max(Counter(task.family for task in tasks).values()) <= 0.15 * len(tasks)


@each_scenario
def test_splits_share_no_task_and_no_gold_write(name: str) -> None:
    tasks = every_task(name)
    writes = [task.gold_write_hash for task in tasks if task.gold_write_hash]
    assert len({task.task_hash for task in tasks}) == len(tasks) == len({task.id for task in tasks})
    assert len(set(writes)) == len(writes)


@each_scenario
def test_doing_nothing_can_solve_less_than_10_percent(name: str) -> None:
    """Only a task in which everything must be refused is solved by nothing."""
    for split in mcp_scenario(name).splits():
        tasks = mcp_scenario(name).tasks(split)
        assert sum(not task.gold_writes and not task.communicate for task in tasks) < 0.1 * len(tasks)


@each_scenario
def test_no_value_is_part_of_the_words_around_it(name: str) -> None:
    language = mcp_scenario(name).language
    for task in every_task(name):
        for goal in goals_of(task.brief):
            text = " | ".join(words_around(language, goal))
            values = values_said(language, goal)
            assert not [v for v in values if said(v, text)], task.id
            assert "answer" not in goal.slots or not said(goal.slots["answer"], text), task.id


@each_scenario
def test_the_initial_state_is_the_same_every_time_it_is_made(name: str, tmp_path: Path) -> None:
    scenario = mcp_scenario(name)
    marks = set()
    for number in range(2):
        place = tmp_path / str(number)
        place.mkdir()
        scenario._module.write(scenario._module.state(1), place)
        marks.add(fingerprint(snapshot(scenario.server.snapshot, place)))
    assert len(marks) == 1


# --- on the real servers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The four servers in environments of their own: those of this machine's cache, or installed for this run."""
    root = CACHE or str(tmp_path_factory.getbasetemp().parent / "mcp-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", root)
        try:
            for name in SHIPPED:
                install(mcp_scenario(name).server)
        except MuarlError as error:
            pytest.skip(f"no package registry can be reached: {error.why}")
        yield SHIPPED
        for name in SHIPPED:
            background().submit(mcp_scenario(name).pool.close()).result(30)


def rollout(folder: Path, agent: str, tasks: int, capfd: Any) -> dict[str, Any]:
    sets = [f"mcp:{name}:test" for name in SHIPPED]
    argv = ["rollout", "--agent", agent, "--max-tasks", str(tasks), "--out", str(folder / agent), "--json", "group=1"]
    assert main([*argv, *(part for tasks in sets for part in ("--tasks", tasks))]) == 0
    return dict(json.loads(capfd.readouterr().out))


@pytest.mark.slow
def test_real_servers_are_played_by_every_scripted_agent(servers: tuple[str, ...], tmp_path: Path, capfd: Any) -> None:
    """Oracle and careful agents solve every task, hasty ones fewer, nothing ends in a fault; and the careful one keeps
    every rule of every scenario."""
    scores = {agent: rollout(tmp_path, agent, 40, capfd)["score"] for agent in ("oracle", "careful", "hasty")}
    assert scores["oracle"]["mean"] == scores["careful"]["mean"] == 1.0
    assert scores["hasty"]["mean"] < 0.9
    for agent in scores:
        assert all(episode.valid for episode in iter_episodes(tmp_path / agent))
    again = rollout(tmp_path / "again", "careful", 40, capfd)
    assert again["score"] == scores["careful"]
    events = [
        {(e.scenario, e.task_id): e.events for e in iter_episodes(folder)}
        for folder in (tmp_path / "careful", tmp_path / "again" / "careful")
    ]
    assert events[0] == events[1], "another process in another directory says the same words"
    for episode in iter_episodes(tmp_path / "careful"):
        scenario = mcp_scenario(episode.scenario.removeprefix("mcp:"))
        task = next(t for t in scenario.tasks("test") if t.id == episode.task_id)
        broken = [f for f in judge(episode, scenario, task).findings if f.verdict is Verdict.FAIL]
        assert not broken, (episode.task_id, broken)


@pytest.mark.slow
def test_gold_calls_of_each_scenario_fit_the_servers_schemas(servers: tuple[str, ...]) -> None:
    for name in servers:
        scenario: McpScenario = mcp_scenario(name)
        box = Toolbox(scenario.tools)
        assert {tool.klass for tool in scenario.tools} == set(ToolClass)
        for task in every_task(name):
            for call in task.gold:
                assert not box.problem(ToolCall("c", call.name, call.arguments)), (task.id, call)
