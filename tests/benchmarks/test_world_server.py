"""The world server: a real process, its crashes, its hangs, and the episodes that were in it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fakes.episodes import LIMITS, play, play_all

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.checkouts import WORKERS
from muarl_cli.benchmarks.served import ServedScenario
from muarl_cli.benchmarks.tau2_upstream import class_of
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.protocols import AgentTurn, InfraFault
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import stage_of, without_outputs
from muarl_cli.worlds.server import WorldServer

FAKES = Path(__file__).parents[1] / "fakes"


def server_at(root: Path, seconds: float = 20.0) -> WorldServer:
    command = [sys.executable, str(WORKERS / "serving.py"), "served_host", str(root)]
    return WorldServer("counter", command, {"PYTHONPATH": str(FAKES)}, seconds)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WorldServer]:
    made = server_at(tmp_path)
    yield made
    made.close()


@pytest.fixture
def counter(server: WorldServer) -> ServedScenario:
    return ServedScenario("tau2", "counter", server, class_of)


class Once:
    """An agent that makes one call in its first turn and then closes."""

    info: ClassVar[dict[str, Any]] = {"kind": "scripted", "model": "once", "revision": "", "weight_version": 0}

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, stage: Any, task: Any) -> Any:
        turns = [AgentTurn(calls=(ToolCall("c1", self.name, {"by": 1}),)), AgentTurn(text="Goodbye!")]
        session = DoNothing().open(stage, task)
        session._turns = turns
        return session


async def test_gold_replays_pass_the_served_reward_and_idle_ones_fail(counter: ServedScenario) -> None:
    tasks = counter.tasks("test")
    gold = await play_all(counter, tasks, GoldReplay(), MinimalUsers())
    idle = await play_all(counter, tasks, DoNothing(), MinimalUsers())
    assert [p.outcome.reward for p in gold] == [1.0] * 6
    assert [p.outcome.reward for p in idle] == [0.0] * 6
    assert gold[0].outcome.state.final == gold[0].outcome.state.gold == "2"
    assert {tool.klass for tool in counter.tools} == {ToolClass.WRITE, ToolClass.READ}


async def test_many_episodes_share_a_process_and_are_forgotten_when_they_end(
    counter: ServedScenario, server: WorldServer
) -> None:
    await play_all(counter, counter.tasks("test"), GoldReplay(), MinimalUsers(), in_flight=6)
    assert server.starts == 1
    assert server.ask("held") == 0


async def test_what_must_be_said_can_be_left_out_and_the_task_stays_the_same(counter: ServedScenario) -> None:
    task = counter.tasks("test")[0]
    quiet = without_outputs(task)
    world = counter.world(task)
    await world.call(ToolCall("c", "add", {"by": 2}), "agent")
    assert (counter.outcome(task, world, []).reward, counter.outcome(quiet, world, []).reward) == (0.0, 1.0)
    assert (task.task_hash, task.gold_write_hash) == (quiet.task_hash, quiet.gold_write_hash)


@pytest.mark.parametrize(
    ("call", "end"), [("die", EndReason.INFRA_FAULT), ("hang", EndReason.INFRA_FAULT), ("break", EndReason.TOOL_FAULT)]
)
async def test_a_dying_or_hanging_server_is_an_infrastructure_fault_and_never_a_failure(
    tmp_path: Path, call: str, end: EndReason
) -> None:
    server = server_at(tmp_path, seconds=4.0)
    scenario = ServedScenario("tau2", "counter", server, class_of)
    task = scenario.tasks("test")[0]
    world, stage = scenario.world(task), stage_of(scenario, 0)
    session, user = Once(call).open(stage, task), MinimalUsers().open(stage, task)
    transcript = await converse(session, user, world, greeting="Hi!", limits=LIMITS)
    assert transcript.end.reason is end
    assert not end.valid
    world.close()
    after = await play(scenario, task, GoldReplay(), MinimalUsers())
    assert after.outcome.reward == 1.0, "the next episode gets a server that works"
    assert server.starts == (1 if call == "break" else 2)
    server.close()


async def test_all_requests_that_a_killed_server_owed_fail_as_infrastructure_faults(
    counter: ServedScenario, server: WorldServer
) -> None:
    worlds = [counter.world(counter.tasks("test")[0]) for _ in range(4)]
    owed = [asyncio.create_task(world.call(ToolCall("c", "hang", {"by": 1}), "agent")) for world in worlds]
    await asyncio.sleep(0.2)
    os.kill(server.pid, signal.SIGKILL)
    found = await asyncio.gather(*owed, return_exceptions=True)
    assert [type(fault) for fault in found] == [InfraFault] * 4
    with pytest.raises(InfraFault, match="middle of the episode"):
        await worlds[0].call(ToolCall("c", "look", {}), "agent")
    fresh = counter.world(counter.tasks("test")[0])
    assert (await fresh.call(ToolCall("c", "add", {"by": 2}), "agent")).text == "2"


async def test_requests_that_run_at_the_same_time_get_their_own_answers(counter: ServedScenario) -> None:
    worlds = [counter.world(counter.tasks("test")[0]) for _ in range(20)]
    answers = await asyncio.gather(
        *(world.call(ToolCall("c", "add", {"by": number}), "agent") for number, world in enumerate(worlds))
    )
    assert [answer.text for answer in answers] == [str(number) for number in range(20)]


def test_a_server_that_cannot_start_says_why_and_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(MuarlError) as absent:
        server_at(tmp_path / "nowhere").ask("spec", domain="counter")
    assert absent.value.code is ExitCode.MISSING_INPUT
    assert "is not there" in str(absent.value)
    with pytest.raises(MuarlError, match="cannot be started"):
        WorldServer("none", [str(tmp_path / "no-python")]).ask("spec", domain="counter")


def test_closing_ends_the_process(server: WorldServer) -> None:
    pid = server.ask("pid")
    server.close()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the process is still there")
