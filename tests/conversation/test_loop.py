"""The loop: what happens in which order, what ends an episode, and what never does."""

from __future__ import annotations

import pytest
from fakes.talks import LIMITS, AgentOf, UserOf, WorldOf, call, hold

from muarl_cli.conversation.ends import FAULTS, EndReason
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.protocols import (
    AgentLimit,
    AgentTurn,
    BudgetSpent,
    Fault,
    InfraFault,
    ToolFault,
    Usage,
    UserFault,
    UserTurn,
)
from muarl_cli.conversation.tools import ToolCall, parse_arguments

STOP = UserTurn("bye", EndReason.USER_STOP)


def shape(events: list[Event]) -> list[str]:
    return [f"{e.actor}.{e.kind}" for e in events]


async def test_greeting_user_calls_words_stop_are_logged_in_the_order_they_happened() -> None:
    seen: list[Event] = []
    agent = AgentOf(AgentTurn(calls=(call("put", 0, number=1),)), AgentTurn("done"))
    talk = await hold(agent, UserOf(UserTurn("please"), STOP), WorldOf(), on_event=seen.append)
    assert shape(talk.events) == [
        "agent.say", "user.say", "agent.call", "world.result", "agent.say", "user.say", "runner.end"
    ]  # fmt: skip
    assert talk.events[0].tags == ("greeting",)
    assert [e.i for e in talk.events] == list(range(7))
    assert seen == talk.events
    assert talk.end.reason is EndReason.USER_STOP
    assert talk.events[-1].text == "user_stop"


async def test_without_a_greeting_the_user_opens() -> None:
    talk = await hold(AgentOf(AgentTurn("hm")), UserOf(STOP), WorldOf(), greeting="")
    assert shape(talk.events) == ["user.say", "runner.end"]


async def test_several_calls_of_one_turn_are_answered_by_id_in_call_order() -> None:
    calls = (call("put", 7, number=1), call("look", 3), call("put", 5, number=2))
    agent = AgentOf(AgentTurn(calls=calls), AgentTurn("done"))
    world = WorldOf()
    talk = await hold(agent, UserOf(UserTurn("please"), STOP), world)
    traffic = [(str(e.kind), e.call.id, e.tags) for e in talk.events if e.call]
    assert traffic == [
        ("call", "c7", ()), ("result", "c7", ()),
        ("call", "c3", ("same_turn",)), ("result", "c3", ()),
        ("call", "c5", ("same_turn",)), ("result", "c5", ()),
    ]  # fmt: skip
    assert [name for _, name, _ in world.calls] == ["put", "look", "put"]
    # the agent's next turn sees all three answers at once, and none of its own calls again
    assert [e.call.id for e in agent.news[1] if e.actor is Actor.WORLD and e.call] == ["c7", "c3", "c5"]


async def test_results_carry_class_and_write_set() -> None:
    agent = AgentOf(AgentTurn(calls=(call("put", 0, number=1), call("look", 1))), AgentTurn("done"))
    talk = await hold(agent, UserOf(UserTurn("please"), STOP), WorldOf())
    put, look = (e.call for e in talk.events if e.kind is Kind.RESULT)
    assert put and put.klass == "write" and put.ok and put.writes[0].entity == "box"
    assert look and look.klass == "read" and look.writes == ()


def raw(text: str, name: str = "put") -> ToolCall:
    arguments, problem = parse_arguments(text)
    return ToolCall("c0", name, arguments, problem, text)


DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]
BAD_CALLS = {
    "malformed JSON": (raw('{"number": 1'), "not valid JSON"),
    "not an object": (raw("[1, 2]"), "must be a JSON object"),
    "NaN": (raw('{"number": NaN}'), "NaN is not JSON"),
    "unknown tool": (call("putt", number=1), "Did you mean put?"),
    "wrong type": (call("put", number="one"), "number"),
    "missing argument": (call("put"), "Arguments: number"),
    "extra argument": (call("put", number=1, colour="red"), "colour"),
    "1 MB of arguments": (raw('{"number": "' + "x" * 1_000_000 + '"}'), "at most 32768"),
    "100,000 levels": (raw('{"a":' * 6000), "nested deeper than 32"),
    "100,000 brackets": (raw("[" * 30_000), "nested deeper than 32"),
    "1 MB tool name": (call("x" * 1_000_000), "unknown tool"),
    "100,000 deep object given as is": (ToolCall("c0", "put", {"number": DEEP}), "nested too deeply"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_bad_call_is_an_error_that_names_what_is_valid_and_the_episode_goes_on(name: str) -> None:
    bad, expected = BAD_CALLS[name]
    world = WorldOf()
    agent = AgentOf(AgentTurn(calls=(bad,)), AgentTurn(calls=(call("put", 1, number=1),)), AgentTurn("done"))
    talk = await hold(agent, UserOf(UserTurn("please"), STOP), world)
    error = next(e for e in talk.events if e.kind is Kind.ERROR)
    assert expected in error.text
    assert len(error.text) < 1000
    assert error.call and error.call.id == bad.id and error.call.ok is False
    assert world.calls == [("agent", "put", {"number": 1})], "only the good call reached the world"
    assert talk.end.reason is EndReason.USER_STOP
    assert all(len(e.text) <= 2000 for e in talk.events)


def test_a_hundred_thousand_levels_of_json_are_refused_without_a_recursion_error() -> None:
    arguments, problem = parse_arguments('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert arguments == {} and "200006" in problem


async def test_an_unknown_tool_names_all_tools() -> None:
    talk = await hold(
        AgentOf(AgentTurn(calls=(call("zzz"),)), AgentTurn("done")), UserOf(UserTurn("x"), STOP), WorldOf()
    )
    text = next(e.text for e in talk.events if e.kind is Kind.ERROR)
    assert all(tool.name in text for tool in WorldOf.tools)
    assert "phone_restart" not in text


async def test_identical_calls_in_a_row_end_as_limit_of_the_agent() -> None:
    talk = await hold(AgentOf(AgentTurn(calls=(call("look"),))), UserOf(UserTurn("x")), WorldOf())
    assert talk.end.reason is EndReason.LIMIT_AGENT and "the same call 3 times" in talk.end.detail
    assert sum(e.kind is Kind.CALL for e in talk.events) == 3
    assert talk.end.reason.valid and not talk.end.reason.graded


async def test_failed_calls_in_a_row_end_as_limit_of_the_agent_and_a_good_one_between_resets_the_count() -> None:
    def failing(start: int, count: int) -> list[AgentTurn]:
        return [AgentTurn(calls=(call("nothing", n, number=n),)) for n in range(start, start + count)]

    talk = await hold(AgentOf(*failing(0, 20)), UserOf(UserTurn("x")), WorldOf())
    assert talk.end.reason is EndReason.LIMIT_AGENT and talk.end.detail == "10 failed calls in a row"
    mixed = [*failing(0, 9), AgentTurn(calls=(call("look"),)), *failing(20, 9), AgentTurn("done")]
    talk = await hold(AgentOf(*mixed), UserOf(UserTurn("x"), STOP), WorldOf())
    assert talk.end.reason is EndReason.USER_STOP


async def test_turns_are_user_messages_plus_calls() -> None:
    talk = await hold(AgentOf(AgentTurn("hm")), UserOf(UserTurn("x")), WorldOf())
    assert talk.end.reason is EndReason.LIMIT_AGENT and talk.tally.turns == 30
    assert sum(e.actor is Actor.USER for e in talk.events) == 30


async def test_agent_tokens_are_a_limit_of_the_agent() -> None:
    limits = Limits(30, 100, 3, 10, 0)
    talk = await hold(AgentOf(AgentTurn("hm", usage=Usage(7, 40))), UserOf(UserTurn("x")), WorldOf(), limits)
    assert talk.end.reason is EndReason.LIMIT_AGENT and talk.end.detail == "120 agent tokens"
    assert talk.tally.prompt_tokens == 21


async def test_a_full_context_is_a_limit_of_the_agent() -> None:
    talk = await hold(AgentOf(AgentLimit("context of 512 tokens")), UserOf(UserTurn("x")), WorldOf())
    assert talk.end.reason is EndReason.LIMIT_AGENT and "512" in talk.end.detail


FAULT_CASES: dict[str, tuple[AgentOf, UserOf, EndReason]] = {
    "user": (AgentOf(AgentTurn("hm")), UserOf(UserFault("empty reply")), EndReason.USER_FAULT),
    "engine": (AgentOf(InfraFault("no answer")), UserOf(UserTurn("x")), EndReason.INFRA_FAULT),
    "budget": (AgentOf(BudgetSpent("$5")), UserOf(UserTurn("x")), EndReason.LIMIT_BUDGET),
    "tool": (AgentOf(AgentTurn(calls=(call("crash"),))), UserOf(UserTurn("x")), EndReason.TOOL_FAULT),
    "tool that says so": (AgentOf(ToolFault("hung")), UserOf(UserTurn("x")), EndReason.TOOL_FAULT),
    "unnamed": (AgentOf(Fault("?")), UserOf(UserTurn("x")), EndReason.INFRA_FAULT),
}


@pytest.mark.parametrize("name", FAULT_CASES)
async def test_a_fault_ends_the_episode_under_its_own_name_and_makes_it_invalid(name: str) -> None:
    agent, user, reason = FAULT_CASES[name]
    talk = await hold(agent, user, WorldOf())
    assert talk.end.reason is reason
    assert not talk.end.reason.valid and not talk.end.reason.graded
    assert talk.end.detail
    assert (talk.events[-1].actor, talk.events[-1].kind) == (Actor.RUNNER, Kind.END)


def test_every_fault_is_invalid_and_every_other_end_but_the_budget_is_valid() -> None:
    assert {reason for reason in EndReason if not reason.valid} == FAULTS | {EndReason.LIMIT_BUDGET}


async def test_a_hanging_tool_ends_at_the_time_limit_as_spent_budget() -> None:
    limits = Limits(30, 0, 3, 10, 0.05)
    talk = await hold(AgentOf(AgentTurn(calls=(call("hang"),))), UserOf(UserTurn("x")), WorldOf(), limits)
    assert talk.end.reason is EndReason.LIMIT_BUDGET and not talk.end.reason.valid


async def test_words_beside_calls_are_not_heard_by_the_user() -> None:
    agent = AgentOf(AgentTurn("the password is 1234", (call("look"),)), AgentTurn("aloud"))
    user = UserOf(UserTurn("please"), STOP)
    talk = await hold(agent, user, WorldOf())
    secret = next(e for e in talk.events if "password" in e.text)
    assert secret.tags == ("beside_calls",) and not secret.heard_by_user()
    assert [e.text for e in user.news[1] if e.heard_by_user()] == ["aloud"]


async def test_the_users_own_tool_traffic_is_hidden_from_the_agent() -> None:
    user = UserOf(UserTurn("hello"), UserTurn(calls=(call("phone_restart", 9),)), UserTurn("restarted"), STOP)
    agent = AgentOf(AgentTurn("please restart your phone"), AgentTurn("good"))
    talk = await hold(agent, user, WorldOf())
    assert any(e.actor is Actor.USER and e.kind is Kind.CALL for e in talk.events)
    assert [e.text for e in agent.news[1]] == ["restarted"]
    assert [e.text for e in user.news[2]] == ["", "phone_restart ok"]


async def test_an_agent_has_no_access_to_the_users_tools() -> None:
    agent = AgentOf(AgentTurn(calls=(call("phone_restart"),)), AgentTurn("done"))
    world = WorldOf()
    await hold(agent, UserOf(UserTurn("x"), STOP), world)
    assert world.calls == []


async def test_a_terminal_tool_ends_the_episode_and_later_calls_of_the_turn_are_not_executed() -> None:
    world = WorldOf()
    agent = AgentOf(AgentTurn(calls=(call("hand_over", 0), call("put", 1, number=1))))
    talk = await hold(agent, UserOf(UserTurn("x")), world)
    assert talk.end.reason is EndReason.TRANSFER and talk.end.detail == "hand_over"
    assert [name for _, name, _ in world.calls] == ["hand_over"]


async def test_the_agent_ends_a_conversation_only_where_it_may() -> None:
    agent = AgentOf(AgentTurn("bye", stop=True))
    talk = await hold(agent, UserOf(UserTurn("x")), WorldOf(), agent_may_stop=True)
    assert talk.end.reason is EndReason.AGENT_STOP
    talk = await hold(AgentOf(AgentTurn("bye", stop=True)), UserOf(UserTurn("x"), STOP), WorldOf())
    assert talk.end.reason is EndReason.USER_STOP
    assert any(e.kind is Kind.ERROR and "not by the agent" in e.text for e in talk.events)


async def test_an_empty_turn_of_the_agent_is_a_turn_the_user_answers() -> None:
    user = UserOf(UserTurn("x"), UserTurn("are you there?"), STOP)
    talk = await hold(AgentOf(AgentTurn("")), user, WorldOf())
    assert talk.end.reason is EndReason.USER_STOP and user.at == 3


async def test_a_cut_turn_is_marked_and_the_limits_are_the_ones_given() -> None:
    talk = await hold(AgentOf(AgentTurn("and so", cut=True)), UserOf(UserTurn("x"), STOP), WorldOf())
    assert next(e for e in talk.events if e.text == "and so").tags == ("cut",)
    assert talk.tally.limits is LIMITS


async def test_arguments_that_json_cannot_hold_do_not_stop_the_log() -> None:
    agent = AgentOf(AgentTurn(calls=(call("put", number=float("nan")),)), AgentTurn("done"))
    talk = await hold(agent, UserOf(UserTurn("x"), STOP), WorldOf())
    logged = next(e.call for e in talk.events if e.kind is Kind.CALL)
    assert logged and set(logged.arguments or {}) == {"unloggable"}
    assert talk.end.reason is EndReason.USER_STOP
