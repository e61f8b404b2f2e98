"""Event lists in the form of TAU-bench's own evaluators."""

from __future__ import annotations

import json

import pytest
from fakes.episodes import play

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.users.minimal import MinimalUsers

TOOLS = (
    ToolSpec(
        "look", "", {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}, ToolClass.READ
    ),
    ToolSpec("add", "", {"type": "object", "properties": {"gb": {"type": "number"}}}, ToolClass.WRITE),
)


def _events(*rows: tuple) -> list[Event]:
    return [Event(i, *row) for i, row in enumerate(rows)]


def _call(name: str, arguments: dict | None, call_id: str = "c1") -> CallRecord:
    return CallRecord(call_id, name, arguments)


def test_calls_of_one_turn_are_one_message_followed_by_their_answers() -> None:
    events = _events(
        (Actor.AGENT, Kind.SAY, "one moment", None, ("beside_calls",)),
        (Actor.AGENT, Kind.CALL, "", _call("look", {"id": "a"}, "c1")),
        (Actor.WORLD, Kind.RESULT, "A", _call("look", None, "c1")),
        (Actor.AGENT, Kind.CALL, "", _call("add", {"gb": 2}, "c2"), ("same_turn",)),
        (Actor.WORLD, Kind.ERROR, "Error: no", _call("add", None, "c2")),
        (Actor.AGENT, Kind.SAY, "done"),
    )
    first, one, two, last = messages_of(events, TOOLS)
    assert first["content"] == "one moment"
    assert [(c["name"], c["arguments"]) for c in first["tool_calls"]] == [("look", {"id": "a"}), ("add", {"gb": 2.0})]
    assert isinstance(first["tool_calls"][1]["arguments"]["gb"], float)
    assert [(m["id"], m["content"], m["error"]) for m in (one, two)] == [
        (first["tool_calls"][0]["id"], "A", False),
        (first["tool_calls"][1]["id"], "Error: no", True),
    ]
    assert (last["role"], last["content"], last["turn_idx"]) == ("assistant", "done", 3)


def test_calls_that_never_reached_the_benchmark_are_left_out() -> None:
    events = _events(
        (Actor.AGENT, Kind.CALL, "{", _call("look", None)),
        (Actor.WORLD, Kind.ERROR, "Error: no JSON", _call("look", None)),
        (Actor.AGENT, Kind.CALL, "", _call("look", {}, "c2")),
        (Actor.WORLD, Kind.ERROR, "Error: id is missing", _call("look", None, "c2")),
        (Actor.AGENT, Kind.CALL, "", _call("nothing", {}, "c3")),
        (Actor.WORLD, Kind.ERROR, "Error: unknown", _call("nothing", None, "c3")),
        (Actor.AGENT, Kind.CALL, "", _call("look", {"id": "a"}, "c4")),
    )
    assert messages_of(events, TOOLS) == [], "the last one was never answered"


def test_the_end_token_stands_in_the_last_words_of_the_user() -> None:
    events = _events((Actor.USER, Kind.SAY, "bye"), (Actor.RUNNER, Kind.END, "user_stop"))
    assert messages_of(events, TOOLS)[-1]["content"] == "bye ###STOP###"
    silent = _events((Actor.USER, Kind.SAY, ""), (Actor.RUNNER, Kind.END, "transfer"))
    assert messages_of(silent, TOOLS)[-1]["content"] == "###TRANSFER###"
    cut = _events((Actor.USER, Kind.SAY, "and"), (Actor.RUNNER, Kind.END, "limit_agent"))
    assert messages_of(cut, TOOLS)[-1]["content"] == "and"


async def test_a_users_calls_are_theirs_in_the_messages() -> None:
    pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")
    from muarl_cli.benchmarks.tau2 import tau2_scenario

    telecom = tau2_scenario("telecom")
    task = next(t for t in telecom.tasks("small") if {c.requestor for c in t.gold} == {"agent", "user"})
    played = await play(telecom, task, GoldReplay(), MinimalUsers())
    messages = messages_of(played.transcript.events, telecom.tools, telecom.user_tools)
    made = [(m["role"], c["requestor"], c["name"]) for m in messages for c in m.get("tool_calls") or ()]
    party = {"agent": "assistant", "user": "user"}
    assert made == [(party[c.requestor], party[c.requestor], c.name) for c in task.gold]
    assert json.loads(json.dumps(messages)) == messages
