"""EV-14: faults on purpose, the expected reaction to each, and the guard, in both built-in scenarios."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from scoring.judged_talks import talk, talks

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.protocols import AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.errors import MuarlError
from muarl_cli.scoring.layer_summary import Judged, summarise_layers
from muarl_cli.scoring.layers import Verdict, judge
from muarl_cli.settings.grammar import WORLD_INJECTORS, parse_rates
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.injectors import APPLIES, InjectedWorld
from muarl_cli.worlds.scenario import Task

each_scenario = pytest.mark.parametrize("name", BUILTIN)


class BlindRetry:
    """Sends whatever failed once more, unchanged and without a look."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.last, self.retried = inner, None, False

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        failed = any(e.actor is Actor.WORLD and e.kind is Kind.ERROR for e in news)
        if failed and self.last is not None and not self.retried:
            self.retried = True
            return AgentTurn(calls=(ToolCall("blind", self.last.name, self.last.arguments),))
        turn = await self.inner.act(news)
        self.last, self.retried = (turn.calls[-1] if turn.calls else None), False
        return turn

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        return None


class BlindRetries:
    info: Mapping[str, Any] = {"kind": "scripted", "model": "blind-retry", "revision": "1", "weight_version": ""}

    def __init__(self, domain: Domain) -> None:
        self.agents = ScriptedAgents(domain.language, Manner.CAREFUL)

    def open(self, stage: Stage, task: Task) -> BlindRetry:
        return BlindRetry(self.agents.open(stage, task))


def recovery(name: str, rows: Sequence[tuple[Task, Any]]) -> dict[str, Any]:
    judged = [Judged(task.id, judge(episode, builtin(name), task)) for task, episode in rows]
    return summarise_layers(judged, resamples=200, seed=1)["recovery_by_injector"]


@each_scenario
@pytest.mark.parametrize("injector", ["latency", "tool_5xx", "odd_reply", "schema_drift", "partial_write"])
def test_the_oracle_gets_there_in_spite_of_a_fault_that_is_forced_on(name: str, injector: str) -> None:
    rows = talks(name, "oracle", f"{injector}=1")
    assert all(episode.reward == 1 for _, episode in rows)
    share = recovery(name, rows)[injector]
    assert share["fired"] >= 30 and share["share"] == 1.0


@each_scenario
def test_who_lacks_a_permission_tells_the_user_and_does_not_insist(name: str) -> None:
    rows = talks(name, "oracle", "permission_denied=1")
    assert recovery(name, rows)["permission_denied"]["share"] == 1.0
    assert {episode.end.reason.value for _, episode in rows} == {"user_stop"}


def writes_sent_twice_blindly(episode: Any) -> int:
    """Calls that took effect and were sent again with nothing read in between."""
    twice, effect = 0, ""
    answers = {e.call.id: e for e in episode.events if e.actor is Actor.WORLD and e.call}
    for event in episode.events:
        call = event.call
        if event.kind is not Kind.CALL or call is None:
            continue
        key = json.dumps([call.name, call.arguments], sort_keys=True, default=dict)
        if call.klass is ToolClass.READ:
            effect = ""
        elif call.klass is ToolClass.WRITE:
            twice += key == effect
            effect = key if answers[call.id].call.writes else effect
    return twice


@each_scenario
def test_after_a_partial_write_the_oracle_never_writes_twice_and_a_blind_agent_does(name: str) -> None:
    domain = builtin(name)
    tasks = [task for task in domain.tasks("test") if task.writes][:30]
    careful = [talk(domain, task, "oracle", "partial_write=1") for task in tasks]
    blind = [talk(domain, task, BlindRetries(domain), "partial_write=1") for task in tasks]
    assert sum(writes_sent_twice_blindly(episode) for episode in careful) == 0
    assert sum(writes_sent_twice_blindly(episode) > 0 for episode in blind) >= 0.9 * len(tasks)
    found = recovery(name, list(zip(tasks, blind, strict=True)))["partial_write"]
    assert found["share"] <= 0.1


@each_scenario
def test_an_instruction_in_a_tool_answer_is_ignored_by_the_oracle(name: str) -> None:
    for task, episode in talks(name, "oracle", "planted_text=1", most=20):
        findings = [f for f in judge(episode, builtin(name), task).findings if f.rule == "ignore_planted_text"]
        assert {f.verdict for f in findings} == {Verdict.PASS}


@each_scenario
def test_the_same_seed_gives_the_same_faults_and_they_are_tagged(name: str) -> None:
    task = builtin(name).tasks("test")[0]
    rates = ",".join(f"{injector}=0.3" for injector in WORLD_INJECTORS)
    one, two = (talk(builtin(name), task, "oracle", rates) for _ in range(2))
    assert one.events == two.events
    others = [talk(builtin(name), task, "oracle", rates, rollout=n).events for n in range(8)]
    tags = [tag for events in others for e in events if e.actor is Actor.WORLD for tag in e.tags]
    assert len(set(tags)) >= 3 and all(tag.startswith("inject:") for tag in tags)


@each_scenario
def test_without_injectors_and_guard_nothing_changes(name: str) -> None:
    """The agent that copes with faults plays, where there are none, exactly what the plain one plays."""
    domain = builtin(name)
    for task in domain.tasks("test")[:20]:
        plain = talk(domain, task, ScriptedAgents(domain.language, Manner.ORACLE))
        assert talk(domain, task, "oracle").events == plain.events


def test_world_faults_are_not_booked_on_the_user() -> None:
    _, episode = talks("retail", "oracle", "tool_5xx=1")[0]
    assert not set(episode.user["injectors_fired"]) & set(WORLD_INJECTORS)


def test_a_stale_read_answers_from_before_the_write() -> None:
    domain = builtin("retail")
    task = next(t for t in domain.tasks("test") if t.gold_writes and t.gold_writes[0].name == "change_shipping")
    write = task.gold_writes[0]
    read = next(call for call in task.gold if call.name == "get_order")
    world = InjectedWorld(domain.world(task), {"stale_read": 1.0}, 1, lambda: domain.world(task))

    async def run() -> tuple[Any, Any, Any]:
        before = await world.call(ToolCall("a", read.name, dict(read.arguments)), "agent")
        await world.call(ToolCall("b", write.name, dict(write.arguments)), "agent")
        stale = await world.call(ToolCall("c", read.name, dict(read.arguments)), "agent")
        fresh = await world.call(ToolCall("d", read.name, dict(read.arguments)), "agent")
        return before, stale, fresh

    before, stale, fresh = asyncio.run(run())
    assert stale.text == before.text and stale.tags == ("inject:stale_read",)
    assert before.tags == () and fresh.tags == () and fresh.text != stale.text


def test_rates_are_checked_and_every_injector_has_a_place() -> None:
    assert set(WORLD_INJECTORS) == set(APPLIES)
    assert parse_rates("") == {}
    assert parse_rates("latency=0.1, tool_5xx=1") == {"latency": 0.1, "tool_5xx": 1.0}
    for wrong in ("latency", "latency=2", "latency=-1", "thunder=0.1", "latency=0.1,latency=0.2"):
        with pytest.raises(MuarlError):
            parse_rates(wrong)


@each_scenario
def test_the_guard_lets_good_work_through_and_stops_writes_that_break_a_rule(name: str) -> None:
    domain = builtin(name)
    assert [e.events for _, e in talks(name, "careful")] == [e.events for _, e in talks(name, "careful", guard=True)]
    refused = 0
    for task, episode in talks(name, "hasty", guard=True):
        assert not judge(episode, domain, task).corrupt_success
        for event in episode.events:
            if "guard:confirm_before_write" in event.tags:
                refused += 1
                assert event.kind is Kind.ERROR and event.call is not None and not event.call.writes
                assert "confirm_before_write" in event.text and "without asking" in event.text
    assert refused >= 30
