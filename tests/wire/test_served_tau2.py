"""TAU2 retail with agent and user both served over the wire, scripted behind it and real clients in front."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.episodes import Played, play_all
from fakes.openai_server import FakeOpenAI, GoldBrain, Running, Troubles

from muarl_cli.agents.openai_chat import OpenAIAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.chat import ChatModel
from muarl_cli.engines.wire import RetryPolicy, Wire
from muarl_cli.users.llm import LlmUsers

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


@pytest.fixture(scope="module")
def retail() -> Any:
    from muarl_cli.benchmarks.tau2 import tau2_scenario

    return tau2_scenario("retail")


async def _served(url: str, scenario: Any, tasks: Any, agent: str = "fake-agent") -> list[Played]:
    retry = RetryPolicy(attempts=8, base_seconds=0.001)
    async with Wire(resolve_address(url, {}), retry=retry) as wire:
        await wire.check("fake-user")
        agents = OpenAIAgents(ChatModel(wire, agent), temperature=0.0, max_turn_tokens=1024)
        users = LlmUsers(
            ChatModel(wire, "fake-user"),
            scenario.user_prompt,
            temperature=0.0,
            max_tokens=256,
        )
        return await play_all(scenario, tasks, agents, users, in_flight=16)


async def test_all_test_tasks_are_solved_at_16_in_flight_with_agent_and_user_served(retail: Any) -> None:
    fake = FakeOpenAI(GoldBrain([retail]), latency=0.005, keep_requests=False)
    with Running(fake) as url:
        played = await _served(url, retail, retail.tasks("test"))
    assert [p.task.id for p in played if p.outcome.reward != 1.0] == []
    assert len(played) == 40
    assert 1 < fake.peak <= 16


async def test_passing_troubles_of_the_server_change_no_score(retail: Any) -> None:
    kinds = ("429", "500", "malformed", "reset")
    fake = FakeOpenAI(GoldBrain([retail]), troubles=Troubles(rate=0.15, kinds=kinds, seed=1), keep_requests=False)
    tasks = retail.tasks("test")[:16]
    with Running(fake) as url:
        played = await _served(url, retail, tasks)
    assert [(p.outcome.reward, p.transcript.end.reason.valid) for p in played] == [(1.0, True)] * len(tasks)


async def test_a_silent_user_model_is_a_user_fault_and_moves_no_sibling(retail: Any) -> None:
    class Mute(GoldBrain):
        """The user of the third task never says a word."""

        def message(self, body: Any) -> dict[str, Any]:
            mute = body["model"] == "fake-user" and body["messages"][0]["content"].startswith(prompt)
            return {"content": ""} if mute else super().message(body)

    tasks = retail.tasks("test")[:6]
    prompt = retail.user_prompt(tasks[2])
    with Running(FakeOpenAI(Mute([retail]), keep_requests=False)) as url:
        played = await _served(url, retail, tasks)
    assert [p.transcript.end.reason is EndReason.USER_FAULT for p in played] == [i == 2 for i in range(6)]
    assert [p.outcome.reward for p in played] == [float(i != 2) for i in range(6)]


async def test_a_served_agent_that_forgets_its_last_write_fails_every_write_task(retail: Any) -> None:
    writing = [task for task in retail.tasks("test") if task.writes][:12]
    with Running(FakeOpenAI(GoldBrain([retail]), keep_requests=False)) as url:
        played = await _served(url, retail, writing, agent="fake-agent-hasty")
    assert [p.outcome.reward for p in played] == [0.0] * 12


async def test_the_server_runs_as_a_program_of_its_own(retail: Any) -> None:
    script = Path(__file__).parent.parent / "fakes" / "openai_server.py"
    command = [sys.executable, str(script), "--port", "0", "--latency", "0.001", "--error-rate", "0.1", "--seed", "4",
               "--error-kinds", "429,503"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        played = await _served(url, retail, retail.tasks("test")[:4])
        assert [p.outcome.reward for p in played] == [1.0] * 4
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


async def test_builtin_scenarios_can_be_served_by_the_same_brain() -> None:
    from muarl_cli.worlds.catalog import scenario_of

    desk = scenario_of("builtin", "retail")
    with Running(FakeOpenAI(GoldBrain([desk]), keep_requests=False)) as url:
        played = await _served(url, desk, desk.tasks("test")[:24])
    assert [p.outcome.reward for p in played] == [1.0] * 24
