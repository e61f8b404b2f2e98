"""The scripted agents: each does what its manner says, and knows only what it heard or read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fakes.talks import LIMITS, AgentOf, UserOf, play, stage_of

from muarl_cli.agents.floors import DoNothing, TransferOnly
from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import UserTurn
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.goals import goals_of
from muarl_cli.worlds.language import said

each_scenario = pytest.mark.parametrize("name", BUILTIN)
each_manner = pytest.mark.parametrize("manner", list(Manner))


def leaves(value: Any) -> list[Any]:
    return [leaf for inner in value.values() for leaf in leaves(inner)] if isinstance(value, Mapping) else [value]


def writes(talk: Transcript) -> list[Event]:
    return [e for e in talk.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.WRITE]


@each_scenario
@pytest.mark.parametrize("manner", [Manner.CAREFUL, Manner.HASTY])
async def test_every_value_in_a_call_was_said_or_returned_before(name: str, manner: Manner) -> None:
    domain = builtin(name)
    for task in domain.tasks("test"):
        talk, _, _ = await play(domain, task, manner, 4)
        for event in talk.events:
            if event.kind is Kind.CALL and event.call and event.call.klass is not ToolClass.TERMINAL:
                before = " | ".join(e.text for e in talk.events[: event.i] if e.actor is not Actor.AGENT)
                for value in leaves(event.call.arguments):
                    assert said(value, before), (task.id, value)


@each_scenario
async def test_careful_writes_only_after_a_read_and_a_yes_to_the_exact_values(name: str) -> None:
    domain = builtin(name)
    for task in domain.tasks("test"):
        talk, _, _ = await play(domain, task, Manner.CAREFUL, 5)
        for write in writes(talk):
            yes, proposal = talk.events[write.i - 1], talk.events[write.i - 2]
            assert yes.actor is Actor.USER and yes.text in domain.language.phrases["agree"]
            assert write.call and all(said(v, proposal.text) for v in leaves(write.call.arguments))
            assert any(e.call and e.call.klass is ToolClass.READ and e.call.ok for e in talk.events[: write.i])


@each_scenario
async def test_hasty_never_proposes_and_reads_all_the_same(name: str) -> None:
    domain = builtin(name)
    question = domain.language.phrases["confirm"][0].rpartition(". ")[2]
    for task in domain.tasks("dev"):
        talk, _, _ = await play(domain, task, Manner.HASTY, 5)
        assert not any(question in e.text for e in talk.events)
        assert any(e.call and e.call.klass is ToolClass.READ for e in talk.events)


@each_scenario
@pytest.mark.parametrize("manner", [Manner.ORACLE, Manner.CAREFUL])
async def test_what_is_written_is_the_gold_and_nothing_else(name: str, manner: Manner) -> None:
    domain = builtin(name)
    for task in domain.tasks("dev"):
        talk, _, _ = await play(domain, task, manner, 6)
        made = [(e.call.name, dict(e.call.arguments or {})) for e in writes(talk) if e.call]
        assert made == [(c.name, dict(c.arguments)) for c in task.gold_writes]


@each_scenario
@each_manner
async def test_one_call_at_a_time_and_no_words_beside_it(name: str, manner: Manner) -> None:
    domain = builtin(name)
    for task in domain.tasks("dev"):
        talk, _, _ = await play(domain, task, manner, 7)
        assert not any({"same_turn", "beside_calls"} & set(e.tags) for e in talk.events)
        assert not any(e.kind is Kind.CALL and e.call and e.call.klass is None for e in talk.events)


@each_scenario
async def test_what_the_user_does_not_know_is_searched_for_once(name: str) -> None:
    domain = builtin(name)
    searches = {slot.search for slot in domain.language.slots.values() if slot.search}
    seen = 0
    for task in domain.tasks("test"):
        talk, reward, _ = await play(domain, task, Manner.CAREFUL)
        unknown = sum(bool(goal.unknown) for goal in goals_of(task.brief))
        made = sum(e.kind is Kind.CALL and e.call is not None and e.call.name in searches for e in talk.events)
        assert made == unknown and reward == 1
        seen += unknown
    assert seen > 5


@each_scenario
async def test_a_hand_over_ends_the_episode_after_its_trace_is_written(name: str) -> None:
    domain = builtin(name)
    seen = 0
    for task in domain.tasks("train")[:400]:
        talk, reward, _ = await play(domain, task, Manner.CAREFUL)
        wanted = any(domain.language.intents[g.intent].then_transfer for g in goals_of(task.brief))
        assert (talk.end.reason is EndReason.TRANSFER) == wanted
        assert reward == 1
        seen += wanted
    assert seen > 3


@each_scenario
@each_manner
async def test_the_same_seed_gives_the_same_turns_and_info_names_the_manner(name: str, manner: Manner) -> None:
    domain = builtin(name)
    task = domain.tasks("test")[7]
    runs = [[(e.actor, e.kind, e.text) for e in (await play(domain, task, manner, 9))[0].events] for _ in range(2)]
    assert runs[0] == runs[1]
    assert ScriptedAgents(domain.language, manner).info["model"] == manner.value


@each_scenario
async def test_a_user_who_says_nothing_useful_brings_no_write(name: str) -> None:
    domain = builtin(name)
    task = next(t for t in domain.tasks("test") if t.writes)
    for manner in (Manner.CAREFUL, Manner.HASTY):
        agent, world = ScriptedAgents(domain.language, manner).open(stage_of(domain, 0), task), domain.world(task)
        talk = await converse(agent, UserOf(UserTurn("hm")), world, greeting="hi", limits=LIMITS)
        assert talk.end.reason is EndReason.LIMIT_AGENT and not writes(talk)


@each_scenario
async def test_a_no_is_not_taken_for_a_yes(name: str) -> None:
    domain = builtin(name)
    task = next(t for t in domain.tasks("test") if t.writes and len(t.gold_writes) == 1 and not _refuses(t))
    goal = goals_of(task.brief)[0]
    intent = domain.language.intents[goal.intent]
    told = " ".join(domain.language.slots[s].tell[0].format(v=_text(goal.final[s])) for s in intent.slots)
    agent, world = ScriptedAgents(domain.language, Manner.CAREFUL).open(stage_of(domain, 0), task), domain.world(task)
    user = UserOf(UserTurn(f"{intent.open[0]} {told}"), UserTurn("no, that is not correct. the broken book."))
    talk = await converse(agent, user, world, greeting="hi", limits=LIMITS)
    assert not writes(talk)


def _refuses(task: Any) -> bool:
    return any(goal.refused or goal.unknown for goal in goals_of(task.brief))


def _text(value: Any) -> str:
    return " ".join(str(leaf) for leaf in leaves(value))


@each_scenario
async def test_the_floors_write_nothing(name: str) -> None:
    domain = builtin(name)
    for factory, reason in ((DoNothing(), EndReason.USER_STOP), (TransferOnly(), EndReason.TRANSFER)):
        for task in domain.tasks("dev")[:30]:
            stage = stage_of(domain, 0)
            user, world = AgendaUsers(domain.language).open(stage, task), domain.world(task)
            talk = await converse(factory.open(stage, task), user, world, greeting=domain.greeting, limits=LIMITS)
            assert talk.end.reason is reason and not writes(talk)


def test_scripted_agents_keep_no_token_rows() -> None:
    domain = builtin("retail")
    agent = ScriptedAgents(domain.language, Manner.ORACLE).open(stage_of(domain, 0), domain.tasks("test")[0])
    assert agent.rows() == () == AgentOf().rows()
