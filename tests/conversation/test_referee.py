"""A benchmark's referee in the real loop: how turns are read, when it is over, what is offered when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from muarl_cli.agents.openai_chat import OpenAIAgents
from muarl_cli.benchmarks.bfcl import BfclReferee
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import AgentTurn, Stage, ToolResult, released
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.users.written import WrittenUsers
from muarl_cli.worlds.guard import GuardedWorld

LIMITS = Limits(max_turns=9, max_agent_tokens=0, max_identical_calls=2, max_failed_calls=2, max_seconds=30.0)
TOOL = ToolSpec("look", "looks", {"type": "object", "properties": {}}, ToolClass.READ)


class Echo:
    """A world whose referee is BFCL's; every call fails, and nothing is refused before it."""

    tools = (TOOL,)
    user_tools = ()

    def __init__(self, referee: BfclReferee) -> None:
        self.referee = referee
        self.called: list[str] = []

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        self.called.append(call.name)
        return ToolResult("no", False)

    def fingerprint(self) -> str:
        return ""

    def close(self) -> None:
        return None


class Plays:
    """Takes the given turns, then the last for ever."""

    def __init__(self, *turns: AgentTurn) -> None:
        self.turns, self.count = turns, 0

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        self.count += 1
        return self.turns[min(self.count, len(self.turns)) - 1]


def calls(*names: str, problem: str = "") -> AgentTurn:
    return AgentTurn(calls=tuple(ToolCall(f"c{i}", name, {}, problem, "raw") for i, name in enumerate(names)))


class _Task:
    def __init__(self, *turns: str) -> None:
        self.extra: dict[str, Any] = {"user_turns": [(text, ()) for text in turns]}


def hold(agent: Any, referee: BfclReferee, *turns: str, wrapped: bool = False) -> tuple[Transcript, Echo]:
    world = Echo(referee)
    user = WrittenUsers().open(Stage("s", "", "", (), "", 0), _Task(*turns))
    around: Any = GuardedWorld(world, ()) if wrapped else world
    return asyncio.run(converse(agent, user, around, greeting="", limits=LIMITS)), world


def test_repetition_and_failures_end_nothing_but_too_many_steps_do() -> None:
    agent = Plays(calls("look"))
    talk, world = hold(agent, BfclReferee(20, 2, False), "one", "two")
    assert (talk.end.reason, talk.end.detail) == (EndReason.LIMIT_AGENT, "21 steps in one turn")
    assert agent.count == len(world.called) == 21


def test_too_many_steps_in_the_last_turn_are_graded() -> None:
    talk, _ = hold(Plays(AgentTurn("fine"), calls("look")), BfclReferee(20, 2, False), "one", "two")
    assert talk.end.reason is EndReason.USER_STOP


def test_a_turn_that_cannot_be_read_is_words_and_the_user_is_next() -> None:
    referee = BfclReferee(20, 2, False)
    talk, world = hold(Plays(calls("look", problem="bad JSON"), calls("nothing_like_it"), AgentTurn("bye")),
                       referee, "one", "two")  # fmt: skip
    assert world.called == ["nothing_like_it"]  # an unknown name is the world's to judge
    assert referee.result(2) == [["raw"], [[{"nothing_like_it": "{}"}], "bye"]]
    assert referee.decoded(2) == [[], [[{"name": "nothing_like_it", "arguments": {}}]]]
    assert talk.end.reason is EndReason.USER_STOP


def test_a_referee_is_heard_through_what_is_put_around_its_world() -> None:
    agent = Plays(calls("look", "look"))
    talk, world = hold(agent, BfclReferee(20, 1, True), "one", wrapped=True)
    assert agent.count == 1 and world.called == ["look", "look"]
    assert talk.end.reason is EndReason.USER_STOP


def test_written_users_say_their_turns_and_leave() -> None:
    talk, _ = hold(Plays(AgentTurn("ok")), BfclReferee(20, 2, False), "one", "two")
    said = [e.text for e in talk.events if e.actor is Actor.USER]
    assert said == ["one", "two", ""] and talk.end.reason is EndReason.USER_STOP


def test_a_held_tool_is_released_by_the_tag_of_a_user_turn_and_only_where_it_was_held() -> None:
    late, never = replace(TOOL, name="late"), replace(TOOL, name="never")
    stage = Stage("s", "", "", (TOOL, late, never), "", 0, held=frozenset({"late", "never"}))
    assert stage.offered == (TOOL,)
    event = Event(0, Actor.USER, Kind.SAY, "now", None, ("tool:late", "tool:look", "inject:x"))
    assert released(event, stage) == (late,)
    session: Any = OpenAIAgents(None, temperature=0, max_turn_tokens=1).open(stage, None)  # type: ignore[arg-type]
    session._take(event)
    assert session._offered == (TOOL, late)
    assert session._messages == [{"role": "user", "content": "now"}]  # an empty policy is no system message


def test_a_policy_is_told_a_released_tool_in_the_user_turn_that_releases_it() -> None:
    from muarl_cli.agents.policy import _with_tools

    late = replace(TOOL, name="late", response={"type": "dict"})
    stage = Stage("s", "", "", (TOOL, late), "", 0, held=frozenset({"late"}))
    event = Event(0, Actor.USER, Kind.SAY, "now", None, ("tool:late",))
    told = _with_tools(event, stage)
    assert told.text.endswith("\nnow") and '"name": "late"' in told.text and '"response"' in told.text
    assert _with_tools(replace(event, tags=()), stage).text == "now"
