"""A served model plays a user who has tools of their own: TAU2 telecom over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.episodes import Played, play_all
from fakes.openai_server import FakeOpenAI, GoldBrain, Running

from muarl_cli.agents.openai_chat import OpenAIAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.engines.chat import ChatModel
from muarl_cli.engines.wire import RetryPolicy, Wire, resolve_address
from muarl_cli.users.cassette import Cassette
from muarl_cli.users.llm import LlmUsers
from muarl_cli.users.minimal import asked_calls, opening

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


class Few:
    """A scenario cut down to tasks whose users open with different words: the scripted agent tells them apart by it."""

    def __init__(self, scenario: Any) -> None:
        self.inner = scenario
        chosen = {opening(task): task for task in scenario.tasks("base")}
        self.chosen = [task for task in chosen.values() if {c.requestor for c in task.gold} == {"agent", "user"}]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def splits(self) -> tuple[str, ...]:
        return ("few",)

    def tasks(self, split: str) -> list[Any]:
        return self.chosen


class Handy(GoldBrain):
    """A user that uses its tools when the agent asks for it, and says what came of it."""

    def _user(self, body: Any) -> dict[str, Any]:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return {"content": f"It says: {last['content']}"}
        names = [tool["function"]["name"] for tool in body.get("tools", ())]
        asked = asked_calls(str(last["content"]), names) if last["role"] == "user" else []
        if not asked:
            return super()._user(body)
        calls = [
            {"id": f"x{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(asked)
        ]
        return {"content": None, "tool_calls": calls}


@pytest.fixture(scope="module")
def telecom() -> Few:
    from muarl_cli.benchmarks.tau2 import tau2_scenario

    return Few(tau2_scenario("telecom"))


async def _served(url: str, scenario: Any, cassette: Any = None) -> list[Played]:
    async with Wire(resolve_address(url, {}), retry=RetryPolicy(attempts=3, base_seconds=0.001)) as wire:
        agents = OpenAIAgents(ChatModel(wire, "fake-agent"), temperature=0.0, max_turn_tokens=512)
        users = LlmUsers(
            ChatModel(wire, "fake-user"),
            scenario.user_prompt,
            temperature=0.0,
            max_tokens=256,
            rules=scenario.user_guidelines,
            cassette=cassette,
        )
        return await play_all(scenario, scenario.chosen, agents, users)


async def test_a_served_user_acts_on_their_device_and_the_tasks_are_solved(telecom: Few) -> None:
    fake = FakeOpenAI(Handy([telecom]))
    with Running(fake) as url:
        played = await _served(url, telecom)
    assert [p.outcome.reward for p in played] == [1.0] * len(telecom.chosen)
    for p in played:
        gold = [c.name for c in p.task.gold if c.requestor == "user"]
        done = [e.call.name for e in p.transcript.events if e.actor is Actor.USER and e.kind is Kind.CALL and e.call]
        assert done == gold
    asked = {r["body"]["model"]: r["body"] for r in fake.requests}
    assert len(asked["fake-user"]["tools"]) == 30
    assert len(asked["fake-agent"]["tools"]) == 13
    shown = json.dumps([r["body"]["messages"] for r in fake.requests if r["body"]["model"] == "fake-agent"])
    assert "Status Bar" not in shown.replace("It says: ", "") or "It says: " in shown


async def test_a_users_tool_calls_are_recorded_and_replayed(telecom: Few, tmp_path: Any) -> None:
    tape = tmp_path / "tape.jsonl"
    with Running(FakeOpenAI(Handy([telecom]))) as url:
        first = await _served(url, telecom, Cassette(tape, recording=True))
        again = await _served(url, telecom, Cassette(tape, recording=False))
    assert [p.transcript.events for p in first] == [p.transcript.events for p in again]
    assert all(p.outcome.reward == 1.0 for p in again)


async def test_a_malformed_call_of_the_user_is_an_error_for_the_user_and_no_end(telecom: Few) -> None:
    class Clumsy(Handy):
        def _user(self, body: Any) -> dict[str, Any]:
            message = super()._user(body)
            used = any(m["role"] == "tool" for m in body["messages"])
            if "tool_calls" in message and not used:
                message["tool_calls"][0]["function"]["arguments"] = "{"
            if body["messages"][-1]["role"] == "tool" and "not valid JSON" in body["messages"][-1]["content"]:
                return super()._user({**body, "messages": [m for m in body["messages"] if m["role"] == "user"]})
            return message

    with Running(FakeOpenAI(Clumsy([telecom]))) as url:
        played = await _served(url, telecom)
    errors = [e for p in played for e in p.transcript.events if e.kind is Kind.ERROR]
    assert errors
    assert {p.transcript.end.reason for p in played} <= {EndReason.USER_STOP, EndReason.TRANSFER}
    assert [p.outcome.reward for p in played] == [1.0] * len(played)
