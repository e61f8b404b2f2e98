"""Upstream's own TAU2 (MUARL_TAU2_ROOT, MUARL_TAU2_PYTHON): a slice of what `docs/measure/tau2_upstream.py` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.episodes import play, play_all
from fakes.trajectories import Playing, variants

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.checkouts import required_server
from muarl_cli.benchmarks.tau2 import tau2_scenario
from muarl_cli.benchmarks.tau2_upstream import upstream_scenario
from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.errors import MuarlError
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.server import WorldServer

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")
NAMES = ("MUARL_TAU2_ROOT", "MUARL_TAU2_PYTHON")
GIVEN = {name: os.environ.get(name, "") for name in NAMES}
pytestmark = [
    pytest.mark.skipif(not all(GIVEN.values()), reason=f"no checkout of TAU2 is named: {', '.join(NAMES)}"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def server() -> Iterator[WorldServer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in GIVEN.items():
            patch.setenv(name, value)
        yield required_server("tau2")


async def test_rewards_equal_upstreams_on_gold_and_spoilt_trajectories(server: WorldServer) -> None:
    scenario = tau2_scenario("telecom")
    compared = 0
    for task in scenario.tasks("small")[:5]:
        for kind, played in variants(task).items():
            found = await play(scenario, task, Playing(played), MinimalUsers())
            messages = messages_of(found.transcript.events, scenario.tools, scenario.user_tools)
            ended = "user_stop" if found.transcript.end.reason.graded else "too_many_errors"
            theirs = server.ask("grade", domain="telecom", task=task.id, messages=messages, termination=ended)
            assert found.outcome.reward == theirs["reward"], (task.id, kind)
            compared += 1
    assert compared == 20


async def test_episodes_can_be_played_and_judged_in_upstreams_own_environment(server: WorldServer) -> None:
    scenario = upstream_scenario("telecom", server)
    assert (len(scenario.tools), len(scenario.user_tools)) == (13, 30)
    tasks = scenario.tasks("small")[:5]
    gold = await play_all(scenario, tasks, GoldReplay(), MinimalUsers())
    idle = await play_all(scenario, tasks, DoNothing(), MinimalUsers())
    assert [p.outcome.reward for p in gold] == [1.0] * 5
    assert [p.outcome.reward for p in idle] == [0.0] * 5
    ours = {task.id: task for task in tau2_scenario("telecom").tasks("small")}
    assert all(task.gold_write_hash == ours[task.id].gold_write_hash for task in tasks), "known again"
    with pytest.raises(MuarlError, match="no domain"):
        upstream_scenario("groceries", server)


async def test_the_bank_s_rewards_equal_upstreams(server: WorldServer) -> None:
    if "banking_knowledge" not in server.ask("domains"):
        pytest.skip("the checkout is of a revision before TAU2 had a bank")
    scenario = tau2_scenario("banking_knowledge")
    upstream = upstream_scenario("banking_knowledge", server)
    assert {tool.name: tool.klass for tool in upstream.tools} == {tool.name: tool.klass for tool in scenario.tools}
    assert upstream.revision["retrieval"] == scenario.revision["retrieval"]
    records = {record["id"]: record for record in scenario.package.records}
    rewards = []
    for task in scenario.tasks("base")[:9:3]:
        for kind, played in variants(task).items():
            found = await play(scenario, task, Playing(played), MinimalUsers())
            about: dict[str, Any] = {"domain": scenario.name, "task": task.id, "record": records[task.id]}
            messages = messages_of(found.transcript.events, scenario.tools, scenario.user_tools)
            theirs = server.ask("grade", messages=messages, termination="user_stop", **about)
            assert found.outcome.reward == theirs["reward"], (task.id, kind)
            rewards.append(theirs["reward"])
    assert set(rewards) == {0.0, 1.0}


def test_upstreams_runner_and_ours_are_raced_over_the_same_conversations() -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "tau2_served.py"
    command = [sys.executable, str(program), "--upstream", "--in-flight", "2", "--latency", "0", "--repeat", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | GIVEN)
    raced = json.loads(done.stdout)
    runner, alone = raced["runner"], raced["alone"]
    assert runner["ours"]["solved"] == runner["theirs"]["solved"] == runner["episodes"] == 2
    assert alone["ours"]["solved"] == alone["episodes"] == 6 and alone["theirs"]["solved"] is None
    for one in (runner, alone):
        assert one["ours"]["request_bytes"] == pytest.approx(one["theirs"]["request_bytes"], rel=0.1)
