"""Processes of a real MCP server, spoken to by the real SDK: isolation, crashes, time-outs, caps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.notes import a_world, close_pool, do, notes, settled

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.protocols import InfraFault, ToolFault
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.scenario import McpScenario


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpScenario]:
    """One pool for the tests of this module: what one of them does must not be seen by the next."""
    made = notes(tmp_path_factory.mktemp("notes"), timeout=15)
    yield made
    close_pool(made)


def test_tools_and_schemas_come_from_the_server_and_only_the_allowed_ones(tmp_path: Path) -> None:
    made = notes(tmp_path, tools={"add_note": "write"})
    own = [tool for tool in made.tools if tool.name not in ("calculate", "think", "transfer_to_human_agents")]
    close_pool(made)
    assert [tool.name for tool in own] == ["add_note"]
    assert own[0].description == "Add a note."
    assert own[0].parameters["required"] == ["text"]


async def test_concurrent_episodes_see_only_their_own_state(scenario: McpScenario) -> None:
    async def episode(number: int) -> tuple[str, str]:
        world = a_world(scenario)
        try:
            for part in range(3):
                await do(world, "add_note", text=f"{number}.{part}")
            return (await do(world, "list_notes")).text, world.fingerprint()
        finally:
            world.close()

    seen = await asyncio.gather(*(episode(number) for number in range(12)))
    for number, (text, _) in enumerate(seen):
        assert text.split() == ["milk", *(f"{number}.{part}" for part in range(3))]
    assert len({mark for _, mark in seen}) == 12
    await settled()
    assert len(scenario.pool._all) <= 2, "twelve episodes shared two processes"


async def test_a_write_names_what_differs_on_disk_and_a_read_nothing(scenario: McpScenario) -> None:
    world = a_world(scenario)
    before = world.fingerprint()
    assert (await do(world, "list_notes")).writes == ()
    assert world.fingerprint() == before
    added = await do(world, "add_note", text="tea")
    assert [(w.entity, w.id) for w in added.writes] == [("file", "notes.txt")]
    assert world.fingerprint() != before
    world.close()


async def test_what_an_episode_leaves_behind_is_gone_before_the_next(scenario: McpScenario) -> None:
    for _ in range(3):  # more episodes than processes
        world = a_world(scenario)
        assert (await do(world, "list_notes")).text == "milk\n"
        await do(world, "spoil")
        world.close()
        await settled()
    assert scenario.pool.lost == 0


async def test_a_killed_server_is_an_infrastructure_fault_and_the_pool_recovers(scenario: McpScenario) -> None:
    world = a_world(scenario)
    number = int((await do(world, "process_id")).text)
    os.kill(number, signal.SIGKILL)
    with pytest.raises(InfraFault) as fault:
        await do(world, "list_notes")
    assert fault.value.reason is EndReason.INFRA_FAULT
    with pytest.raises(InfraFault):
        await do(world, "list_notes")
    world.close()
    for _ in range(3):
        after = a_world(scenario)
        assert (await do(after, "list_notes")).text == "milk\n"
        assert int((await do(after, "process_id")).text) != number
        after.close()
        await settled()


async def test_a_crash_in_the_middle_of_a_write_reaches_no_other_episode(scenario: McpScenario) -> None:
    world = a_world(scenario)
    with pytest.raises(InfraFault):
        await do(world, "die", text="half a note")
    world.close()
    await settled()
    after = a_world(scenario)
    assert "half" not in (await do(after, "list_notes")).text
    after.close()


@pytest.mark.slow
async def test_a_call_past_its_time_is_a_tool_fault_and_its_late_write_is_never_seen(tmp_path: Path) -> None:
    made = notes(tmp_path, timeout=4)
    world = a_world(made)
    number = (await do(world, "process_id")).text
    with pytest.raises(ToolFault):
        await do(world, "write_slowly", text="late", seconds=6)
    world.close()
    await settled()
    after = [a_world(made) for _ in range(2)]
    for other in after:
        assert (await do(other, "process_id")).text != number
        assert (await do(other, "list_notes")).text == "milk\n"
        other.close()
    close_pool(made)


async def test_a_cancelled_call_takes_its_process_out_of_use(scenario: McpScenario) -> None:
    world = a_world(scenario)
    number = (await do(world, "process_id")).text
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await do(world, "write_slowly", text="cut off", seconds=1.5)
    world.close()
    await settled()
    for _ in range(3):
        after = a_world(scenario)
        assert (await do(after, "process_id")).text != number
        after.close()
        await settled()


async def test_long_answers_are_cut_and_say_so(scenario: McpScenario) -> None:
    world = a_world(scenario)
    text = (await do(world, "long_text", characters=9000)).text
    world.close()
    assert text.startswith("x" * 500 + "\n") and text.endswith("[cut: 500 of 9000 characters]")


async def test_errors_are_observations_marked_or_not(scenario: McpScenario) -> None:
    world = a_world(scenario)
    refused, soft = await do(world, "refuse"), await do(world, "soft_error")
    world.close()
    assert not refused.ok and refused.writes == ()
    assert (soft.ok, soft.text) == (False, "Error: soft")


async def test_directories_have_one_name_for_all_processes_both_ways(scenario: McpScenario) -> None:
    worlds = [a_world(scenario) for _ in range(2)]
    answers = [await do(world, "where") for world in worlds]
    assert [answer.text for answer in answers] == ["/data/notes.txt"] * 2
    assert (await do(worlds[0], "read_path", path="/data/notes.txt")).text == "milk\n"
    for world in worlds:
        world.close()


async def test_the_tools_that_no_server_has_are_there_and_cost_no_process(scenario: McpScenario) -> None:
    world = a_world(scenario)
    assert (await do(world, "calculate", expression="6*7")).text == "42"
    assert world._process is None
    world.close()


async def test_one_task_may_hold_two_worlds_even_where_all_processes_are_taken(scenario: McpScenario) -> None:
    async def with_twin() -> str:
        first, twin = a_world(scenario), a_world(scenario)
        await do(first, "add_note", text="only here")
        text = (await do(twin, "list_notes")).text
        first.close(), twin.close()
        return text

    assert await asyncio.gather(*(with_twin() for _ in range(4))) == ["milk\n"] * 4


async def test_refused_calls_never_reach_the_server(tmp_path: Path) -> None:
    rule = {"tools": ["read_path"], "argument": "path", "unless": "^/data/", "say": "only below /data"}
    made = notes(tmp_path, refuse=[rule])
    world = a_world(made)
    outside, inside = (
        await do(world, "read_path", path="/etc/passwd"),
        await do(world, "read_path", path="/data/notes.txt"),
    )
    world.close()
    close_pool(made)
    assert (outside.ok, outside.text) == (False, "Error: only below /data")
    assert inside.ok


def test_closing_a_pool_ends_its_processes_and_removes_their_directories(tmp_path: Path) -> None:
    made = notes(tmp_path)
    assert made.tools
    processes = background().submit(_pids(made)).result(30)
    close_pool(made)
    assert not made.pool.root.exists()
    assert processes and not any(Path(f"/proc/{number}").exists() for number in processes)


async def _pids(made: McpScenario) -> list[int]:
    found = []
    for process in list(made.pool._all):
        found.append(int((await process.call("process_id", {})).text))
    return found
