"""A served model as the agent, in the real loop."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.brains import Says, call
from fakes.episodes import Played, play
from fakes.openai_server import FakeOpenAI, Running

from muarl_cli.agents.openai_chat import OpenAIAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Kind
from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.chat import ChatModel
from muarl_cli.engines.wire import Wire
from muarl_cli.users.minimal import MinimalUsers

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


async def _talk(*messages: str | dict[str, Any], script: tuple[str, ...] = ()) -> tuple[Played, FakeOpenAI]:
    from muarl_cli.benchmarks.tau2 import tau2_scenario

    retail = tau2_scenario("retail")
    fake = FakeOpenAI(Says(*messages), script=list(script))
    with Running(fake) as url:
        async with Wire(resolve_address(url, {})) as wire:
            agents = OpenAIAgents(ChatModel(wire, "m"), temperature=0.5, max_turn_tokens=77)
            assert agents.info["kind"] == "openai"
            return await play(retail, retail.tasks("test")[0], agents, MinimalUsers()), fake


def _results(played: Played) -> list[tuple[bool | None, str]]:
    events = played.transcript.events
    return [(e.call.ok, e.text) for e in events if e.call and e.kind in (Kind.RESULT, Kind.ERROR)]


async def test_several_calls_of_one_turn_are_answered_by_id_in_order() -> None:
    calls = [call("calculate", '{"expression": "1+1"}', "same"), call("calculate", '{"expression": "2+2"}', "same")]
    played, fake = await _talk({"content": None, "tool_calls": calls}, "Goodbye!")
    assert _results(played) == [(True, "2.0"), (True, "4.0")]
    history = fake.requests[1]["body"]["messages"]
    assert [m["role"] for m in history] == ["system", "assistant", "user", "assistant", "tool", "tool"]
    assert [c["id"] for c in history[3]["tool_calls"]] == [m["tool_call_id"] for m in history[4:]]
    assert len({c["id"] for c in history[3]["tool_calls"]}) == 2
    assert [m["content"] for m in history[4:]] == ["2.0", "4.0"]


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("calculate", '{"expression": ', "not valid JSON"),
        ("calculate", "[1]", "must be a JSON object"),
        ("calculate", '{"expression": 5}', "expression"),
        ("calculate", '{"x": "' + "a" * 1_000_000 + '"}', "characters"),
        ("kalculate", "{}", "Did you mean calculate?"),
        ("", "{}", "names no tool"),
        ("bad name\n", "{}", "unknown tool"),
    ],
)
async def test_a_malformed_call_is_an_observation_and_the_history_stays_well_formed(
    name: str, arguments: str, answer: str
) -> None:
    import json

    played, fake = await _talk({"content": None, "tool_calls": [call(name, arguments)]}, "Goodbye!")
    ((ok, text),) = _results(played)
    assert ok is False and answer in text
    assert played.transcript.end.reason is EndReason.USER_STOP
    function = fake.requests[1]["body"]["messages"][3]["tool_calls"][0]["function"]
    assert isinstance(json.loads(function["arguments"]), dict)
    assert function["name"].replace("_", "").isalnum()


async def test_words_beside_calls_are_logged_but_not_heard_by_the_user() -> None:
    beside = {"content": "Goodbye, one moment.", "tool_calls": [call("calculate", '{"expression": "1+1"}')]}
    played, _ = await _talk(beside, "Goodbye!")
    said = [e for e in played.transcript.events if e.text == "Goodbye, one moment."]
    assert len(said) == 1 and not said[0].heard_by_user()
    assert played.transcript.tally.tool_calls == 1


async def test_sampling_settings_tools_and_system_prompt_are_sent_every_turn() -> None:
    _, fake = await _talk({"content": None, "tool_calls": [call("calculate", '{"expression": "1+1"}')]}, "Goodbye!")
    bodies = [request["body"] for request in fake.requests]
    assert [(b["temperature"], b["max_tokens"], len(b["tools"])) for b in bodies] == [(0.5, 77, 15)] * 2
    assert bodies[0]["seed"] != bodies[1]["seed"]
    assert bodies[1]["messages"][: len(bodies[0]["messages"])] == bodies[0]["messages"]


async def test_the_same_seed_sends_the_same_requests_twice() -> None:
    _, one = await _talk("Anything?", "Goodbye!")
    _, two = await _talk("Anything?", "Goodbye!")
    assert [r["body"] for r in one.requests] == [r["body"] for r in two.requests]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("400:context_length_exceeded", EndReason.LIMIT_AGENT), ("500", EndReason.INFRA_FAULT)],
)
async def test_running_out_of_context_is_the_agents_limit_and_a_dead_server_is_a_fault(
    trouble: str, reason: EndReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    from muarl_cli.engines.wire import RetryPolicy

    monkeypatch.setattr(RetryPolicy, "pause", lambda self, attempt, draw: 0.0)
    played, _ = await _talk("never", script=(trouble,) * 6)
    assert played.transcript.end.reason is reason
