"""TAU2's bank: both parties act on one database, most tools are found in documents, users have some of theirs."""

from __future__ import annotations

import json

import pytest
from fakes.episodes import play, play_all

from muarl_cli.agents.floors import DoNothing, TransferOnly, plausible
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.gold import gold_count
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.benchmarks.tau2_provider import UNSEEN
from muarl_cli.conversation.events import Actor, Kind, ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.scoring.rules import rulebook
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task, stage_of

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")
EVERY = 8
"""gold replays of all tasks take ten seconds: here one in this many is played"""


@pytest.fixture(scope="module")
def bank() -> Tau2Scenario:
    return tau2_scenario("banking_knowledge")


@pytest.fixture(scope="module")
def base(bank: Tau2Scenario) -> tuple[Task, ...]:
    return tuple(bank.tasks("base"))


def _first(base: tuple[Task, ...], name: str) -> Task:
    return next(task for task in base if any(call.name == name for call in task.gold))


def test_the_bank_has_its_official_tasks_tools_and_bases(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    assert bank.splits() == ("base",)
    assert (len(base), len({task.task_hash for task in base})) == (97, 97)
    assert [sum(task.bases == (basis,) for task in base) for basis in ("db", "action")] == [88, 9]
    assert (len(bank.tools), len(bank.user_tools)) == (15, 6)
    assert not any(tool.name.startswith("banking_") for tool in (*bank.tools, *bank.user_tools)), "the official names"
    assert bank.revision["retrieval"] == "grep_only"
    assert bank.revision["upstream"].endswith("@fcc9ed68")
    assert "{{" not in bank.policy


async def test_gold_replays_of_the_bank_are_rewarded(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    played = await play_all(bank, base[::EVERY], GoldReplay(), MinimalUsers())
    assert [p.task.id for p in played if p.outcome.reward != 1.0] == []
    assert {e.actor for p in played for e in p.transcript.events if e.kind is Kind.CALL} == {Actor.AGENT, Actor.USER}


@pytest.mark.slow
def test_all_97_pass_and_without_the_last_write_all_fail_but_those_upstream_does_not_see(bank: Tau2Scenario) -> None:
    count = gold_count(bank, "base", unseen=UNSEEN[bank.name])
    assert (count.tasks, count.passed, count.corrupted, count.corrupted_failed) == (97, 97, 93, 89)
    assert count.known_unseen == UNSEEN[bank.name]
    assert count.as_expected


async def test_neither_idling_nor_handing_over_solves_anything(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    handovers = [task for task in base if task.gold[-1].name == "transfer_to_human_agents"]
    assert len(handovers) == 12
    tasks = [*handovers, *base[::EVERY]]
    for agent in (DoNothing(), TransferOnly()):
        played = await play_all(bank, tasks, agent, MinimalUsers())
        assert {p.outcome.reward for p in played} == {0.0}, "a hand-over has to name the reason that the documents say"


def test_a_user_has_the_tools_that_the_task_names_and_no_others(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    counts = set()
    for task in base:
        own = {tool.name for tool in stage_of(bank, 0, task).user_tools}
        assert own == {tool.name for tool in bank.world(task).user_tools} == set(task.extra["user_tools"])
        assert {call.name for call in task.gold if call.requestor == "user"} <= own
        counts.add(len(own))
    assert counts == {0, 1, 2, 3}
    without = next(task for task in base if not task.extra["user_tools"])
    having = next(task for task in base if task.extra["user_tools"])
    assert bank.user_prompt(without)[:1400] != bank.user_prompt(having)[:1400], "guidelines without and with tools"


async def test_a_tool_the_user_has_not_is_an_observation_and_changes_nothing(
    bank: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    task = next(task for task in base if "apply_for_credit_card" not in task.extra["user_tools"])
    asked = _first(base, "apply_for_credit_card")

    class Asking(GoldReplay):
        def open(self, stage, _):  # type: ignore[no-untyped-def]
            return super().open(stage, asked)

    found = await play(bank, task, Asking(), MinimalUsers())
    assert not any(e.call and e.call.writes for e in found.transcript.events)


def test_a_tool_of_the_documents_has_to_be_unlocked_first(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if t.gold_writes and t.gold_writes[-1].name == "call_discoverable_agent_tool")
    world = bank.world(task)
    call = next(c for c in task.gold if c.name == "call_discoverable_agent_tool")
    locked = world.execute(call.name, call.arguments)
    assert "has not been unlocked" in locked.text
    assert not locked.writes
    assert "Tool unlocked" in world.execute("unlock_discoverable_agent_tool", {
        "agent_tool_name": call.arguments["agent_tool_name"]
    }).text  # fmt: skip
    assert world.fingerprint() == bank.world(task).fingerprint(), "what is unlocked is no part of the end state"
    assert world.execute(call.name, call.arguments).writes
    assert "has not been unlocked" in bank.world(task).execute(call.name, call.arguments).text, "of this episode alone"


def test_the_bank_s_rules_name_its_tools(bank: Tau2Scenario) -> None:
    rules = rulebook(bank).rules
    rows = [row for rule in rules for row in rule.data.get("reads", ())]
    assert {tool for row in rows for tool in row["before"] + row["read"]} < {tool.name for tool in bank.tools}
    assert {"look_up_before_verifying", "verify_before_change", "one_step_at_a_time"} <= {rule.id for rule in rules}


def test_tools_that_were_not_offered_are_refused(bank: Tau2Scenario) -> None:
    box = Toolbox(bank.tools)
    assert "unknown tool" in box.problem(ToolCall("1", "close_bank_account_7392", {}))
    assert "unknown tool" in box.problem(ToolCall("1", "initialize", {}))


def test_the_knowledge_base_is_searched_by_pattern(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    world = bank.world(base[0])
    named = world.execute("grep", {"pattern": "open_bank_account_\\d+"})
    assert named.ok
    assert "open_bank_account_4821" in named.text
    assert world.execute("grep", {"pattern": "account"}).text.count("   ID: doc_") == 10, "the ten best"
    assert world.execute("grep", {"pattern": "zzz("}).text == "No matches found for pattern: zzz("


def test_a_task_s_own_records_are_there_and_in_no_other_episode(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if (t.extra["initial_state"] or {}).get("initialization_data"))
    tables = task.extra["initial_state"]["initialization_data"]["agent_data"]
    plain = bank.world(next(t for t in base if not t.extra["initial_state"]))
    assert bank.world(task).fingerprint() != plain.fingerprint()
    assert bank.world(task).diff() == [], "they are where the episode starts from"
    state = bank.world(task)._room.state
    for table, content in tables.items():
        for key in content["data"]:
            assert state.record(table, key) is not None
            assert plain._room.state.record(table, key) != state.record(table, key)


def test_only_writes_change_the_bank_on_either_side_and_never_another_episode(
    bank: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    start = bank.world(base[0]).fingerprint()
    changed = 0
    for requestor, tools in (("agent", bank.tools), ("user", bank.user_tools)):
        world = bank.world(base[0])
        before = world.fingerprint()
        for tool in tools:
            result = world.execute(tool.name, plausible(tool.parameters), requestor)
            after = world.fingerprint()
            assert (after != before) == bool(result.writes), tool.name
            assert tool.klass is ToolClass.WRITE or after == before, tool.name
            changed += after != before
            before = after
    assert changed >= 3
    assert bank.world(base[0]).fingerprint() == start


def test_writes_name_whose_record_they_changed(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if t.gold_writes and t.gold_writes[0].name == "log_verification")
    world = bank.world(task)
    call = task.gold_writes[0]
    (write,) = world.execute(call.name, call.arguments).writes
    assert (write.entity, write.owner) == ("verification_history", call.arguments["user_id"])


def test_a_whole_number_and_the_same_float_apply_for_the_same_card(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = _first(base, "apply_for_credit_card")
    call = next(c for c in task.gold if c.name == "apply_for_credit_card")
    states = set()
    for kind in (int, float):
        world = bank.world(task)
        world.execute(call.name, {**call.arguments, "annual_income": kind(call.arguments["annual_income"])}, "user")
        states.add(world.fingerprint())
    assert len(states) == 1
    row = next(r for r in world.diff() if r["table"] == "credit_card_applications")
    assert json.dumps(row["after"]["annual_income"]) == str(call.arguments["annual_income"]), "as upstream keeps it"


def test_what_upstream_keeps_in_no_table_is_no_part_of_the_state(bank: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if t.id == "task_096")
    world = bank.world(task)
    unlock, first, second = (c for c in task.gold if "discrepancy" in str(c.arguments.get("agent_tool_name")))
    for call in (unlock, first):
        assert world.execute(call.name, call.arguments).ok
    after = world.fingerprint()
    assert "Submitted Successfully" in world.execute(second.name, second.arguments).text
    assert world.fingerprint() == after
