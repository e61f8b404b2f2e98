"""TAU1 from a checkout (MUARL_TAU1_ROOT), judged by its own code in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fakes.episodes import play, play_all

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.checkouts import required_server
from muarl_cli.benchmarks.served import ServedScenario
from muarl_cli.benchmarks.tau1 import tau1_scenario
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.scenario import without_outputs

ROOT = os.environ.get("MUARL_TAU1_ROOT", "")
needs_checkout = pytest.mark.skipif(not ROOT, reason="TAU1 is no package: name a checkout with MUARL_TAU1_ROOT")


@pytest.fixture(scope="module")
def airline() -> Iterator[ServedScenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUARL_TAU1_ROOT", ROOT)
        scenario = tau1_scenario("airline")
    yield scenario
    assert scenario.server.ask("unchanged", domain="airline"), "no episode may write into the shared data"


def test_without_a_checkout_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUARL_TAU1_ROOT", raising=False)
    with pytest.raises(MuarlError) as absent:
        scenario_of("tau1", "retail")
    assert absent.value.code is ExitCode.MISSING_INPUT
    assert "git clone" in absent.value.next_step
    monkeypatch.setenv("MUARL_TAU1_ROOT", "/nowhere/at/all")
    with pytest.raises(MuarlError, match="is no folder"):
        scenario_of("tau1", "retail")
    with pytest.raises(MuarlError, match="unknown TAU1 domain"):
        scenario_of("tau1", "telecom")


@needs_checkout
async def test_gold_replay_solves_all_airline_tasks_and_corrupted_ones_fail(airline: ServedScenario) -> None:
    tasks = airline.tasks("test")
    straight = await play_all(airline, tasks, GoldReplay(), MinimalUsers())
    assert [p.task.id for p in straight if p.outcome.reward != 1.0] == []
    writing = [task for task in tasks if task.writes]
    dropped = await play_all(airline, writing, GoldReplay(drop_last_write=True), MinimalUsers())
    assert (len(tasks), len(writing)) == (50, 30)
    assert {p.outcome.reward for p in dropped} == {0.0}


@needs_checkout
async def test_doing_nothing_gets_38_percent_and_40_without_outputs(airline: ServedScenario) -> None:
    tasks = airline.tasks("test")
    checked = await play_all(airline, tasks, DoNothing(), MinimalUsers())
    dropped = await play_all(airline, [without_outputs(t) for t in tasks], DoNothing(), MinimalUsers())
    assert sum(p.outcome.reward for p in checked) == 19
    assert sum(p.outcome.reward for p in dropped) == 20


@needs_checkout
async def test_our_cheap_equality_of_states_agrees_with_the_hash_of_the_whole_database(
    airline: ServedScenario,
) -> None:
    tasks = [task for task in airline.tasks("test") if task.writes][:4]
    found: list[tuple[str, str]] = []
    for task in tasks:
        for calls in (task.gold, task.gold[:-1]):
            world = airline.world(task)
            for call in calls:
                await world.call(ToolCall("c", call.name, call.arguments), "agent")
            found.append((world.fingerprint(), airline.server.ask("official_hash", episode=world.episode)))
            world.close()
    for cheap, whole in found:
        assert [c == cheap for c, _ in found] == [w == whole for _, w in found]


@needs_checkout
async def test_handing_over_ends_the_episode_at_once(airline: ServedScenario) -> None:
    from muarl_cli.agents.floors import TransferOnly

    played = await play(airline, airline.tasks("test")[0], TransferOnly(), MinimalUsers())
    assert played.transcript.end.reason is EndReason.TRANSFER
    assert played.transcript.events[-2].call is not None, "the call itself ends it, no words follow"
    terminal = [tool.name for tool in airline.tools if tool.klass is ToolClass.TERMINAL]
    assert terminal == ["transfer_to_human_agents"]


@needs_checkout
def test_splits_have_their_sizes_and_the_user_gets_the_official_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUARL_TAU1_ROOT", ROOT)
    retail = tau1_scenario("retail")
    assert {split: len(retail.tasks(split)) for split in retail.splits()} == {"train": 500, "test": 115, "dev": 20}
    task = retail.tasks("dev")[0]
    assert "###STOP###" in retail.user_prompt(task)
    assert task.brief["instruction"] in retail.user_prompt(task)
    assert sum(bool(t.communicate) for t in retail.tasks("train")) == 0
    assert required_server("tau1") is retail.server
