"""TAU2 airline from the registry package."""

from __future__ import annotations

import json

import pytest
from fakes.episodes import play_all

from muarl_cli.agents.floors import DoNothing, TransferOnly, plausible
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task, without_outputs

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


@pytest.fixture(scope="module")
def airline() -> Tau2Scenario:
    return tau2_scenario("airline")


@pytest.fixture(scope="module")
def base(airline: Tau2Scenario) -> tuple[Task, ...]:
    return tuple(airline.tasks("base"))


def test_airline_has_its_official_splits_tools_and_bases(airline: Tau2Scenario, base: tuple[Task, ...]) -> None:
    assert {split: len(airline.tasks(split)) for split in ("train", "test", "base")} == {
        "train": 30,
        "test": 20,
        "base": 50,
    }
    assert len(airline.tools) == 14
    assert sum(tool.klass is ToolClass.WRITE for tool in airline.tools) == 6
    assert {task.bases for task in base} == {("db", "communicate")}


async def test_gold_replay_solves_all_50_and_leaves_the_shared_database_unchanged(
    airline: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    before = airline.package.base.digest()
    played = await play_all(airline, base, GoldReplay(), MinimalUsers())
    assert [p.task.id for p in played if p.outcome.reward != 1.0] == []
    assert len(played) == 50
    assert airline.package.base.digest() == before


async def test_without_their_last_write_all_write_tasks_fail(airline: Tau2Scenario, base: tuple[Task, ...]) -> None:
    writing = [task for task in base if task.writes]
    played = await play_all(airline, writing, GoldReplay(drop_last_write=True), MinimalUsers())
    assert len(writing) == 30
    assert {p.outcome.reward for p in played} == {0.0}


async def test_the_floors_are_high_and_one_task_of_them_needs_words(
    airline: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    for floor in (DoNothing(), TransferOnly()):
        played = await play_all(airline, base, floor, MinimalUsers())
        assert sum(p.outcome.reward for p in played) == 19
    dropped = await play_all(airline, [without_outputs(t) for t in base], DoNothing(), MinimalUsers())
    assert sum(p.outcome.reward for p in dropped) == 20
    assert {t.task_hash for t in base} == {without_outputs(t).task_hash for t in base}


def test_gold_calls_satisfy_the_schemas_and_only_writes_write(airline: Tau2Scenario, base: tuple[Task, ...]) -> None:
    toolbox = Toolbox(airline.tools)
    for task in base:
        world = airline.world(task)
        for call in task.gold:
            assert not toolbox.problem(ToolCall("c", call.name, call.arguments))
            before = world.fingerprint()
            result = world.execute(call.name, call.arguments)
            assert (world.fingerprint() != before) == bool(result.writes)
            assert not result.writes or toolbox[call.name].klass is ToolClass.WRITE
            assert all(write.owner or write.entity == "flights" for write in result.writes)


def test_no_tool_changes_the_state_unless_it_is_listed_as_a_write(
    airline: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    world = airline.world(base[0])
    untouched = world.fingerprint()
    for tool in airline.tools:
        if tool.klass is not ToolClass.WRITE:
            world.execute(tool.name, plausible(tool.parameters))
    assert world.fingerprint() == untouched


def test_searching_flights_shares_records_and_booking_copies_them(
    airline: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    one, other = airline.world(base[0]), airline.world(base[0])
    search = {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}
    found = json.loads(one.execute("search_direct_flight", search).text)
    assert found
    assert one.diff() == []
    gold = next(task for task in base if any(call.name == "book_reservation" for call in task.gold_writes))
    for call in gold.gold:
        one.execute(call.name, call.arguments)
    assert {row["table"] for row in one.diff()} >= {"reservations"}
    assert other.diff() == []
