"""TAU2 retail from the registry package, in the project's own loop."""

from __future__ import annotations

import random

import pytest
from fakes.episodes import Played, play_all

from muarl_cli.agents.floors import DoNothing, TransferOnly
from muarl_cli.agents.gold_replay import GoldReplay, last_write
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.benchmarks.tau2_reward import missing_texts
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


@pytest.fixture(scope="module")
def retail() -> Tau2Scenario:
    return tau2_scenario("retail")


@pytest.fixture(scope="module")
def base(retail: Tau2Scenario) -> tuple[Task, ...]:
    return tuple(retail.tasks("base"))


def _mean(played: list[Played]) -> float:
    return sum(p.outcome.reward for p in played) / len(played)


def test_official_splits_have_their_official_sizes_and_train_and_test_share_no_task(retail: Tau2Scenario) -> None:
    hashes = {split: {task.task_hash for task in retail.tasks(split)} for split in ("train", "test", "base")}
    assert {split: len(found) for split, found in hashes.items()} == {"train": 74, "test": 40, "base": 114}
    assert hashes["train"] | hashes["test"] == hashes["base"]
    assert not hashes["train"] & hashes["test"]


async def test_gold_replay_solves_every_task_and_leaves_the_shared_database_unchanged(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    before = retail.package.base.digest()
    played = await play_all(retail, base, GoldReplay(), MinimalUsers())
    assert [p.task.id for p in played if p.outcome.reward != 1.0] == []
    assert len(played) == 114
    assert {p.transcript.end.reason for p in played} == {EndReason.USER_STOP, EndReason.TRANSFER}
    assert all(p.outcome.state.final == p.outcome.state.gold for p in played)
    over = [p.transcript for p in played if p.transcript.end.reason is EndReason.TRANSFER]
    assert all([e.actor for e in t.events[-3:]] == [Actor.AGENT, Actor.USER, Actor.RUNNER] for t in over), (
        "the call ends nothing: the agent's words follow, and the user leaves on them"
    )
    assert retail.package.base.digest() == before


async def test_without_its_last_effective_write_every_write_task_fails(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    writing = [task for task in base if task.writes]
    played = await play_all(retail, writing, GoldReplay(drop_last_write=True), MinimalUsers())
    assert len(writing) == 103
    assert [p.task.id for p in played if p.outcome.reward != 0.0] == []
    assert all(p.outcome.detail["bases"]["db"] is False and p.transcript.end.reason.graded for p in played)


async def test_the_floors_solve_exactly_the_tasks_that_need_neither_write_nor_words(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    idle = {task.id for task in base if not task.writes and not task.communicate}
    for floor, end in ((DoNothing(), EndReason.USER_STOP), (TransferOnly(), EndReason.TRANSFER)):
        played = await play_all(retail, base, floor, MinimalUsers())
        assert {p.task.id for p in played if p.outcome.reward == 1.0} == idle
        assert {p.transcript.end.reason for p in played} == {end}
        assert 0.0 < _mean(played) < 0.1


def test_tools_are_shown_with_their_full_schemas_and_classes(retail: Tau2Scenario) -> None:
    tools = {tool.name: tool for tool in retail.tools}
    assert len(tools) == 15
    exchange = tools["exchange_delivered_order_items"]
    assert exchange.parameters["properties"]["item_ids"]["items"] == {"type": "string"}
    assert set(exchange.parameters["required"]) == {"order_id", "item_ids", "new_item_ids", "payment_method_id"}
    assert tools["transfer_to_human_agents"].klass is ToolClass.GENERIC, "the user's token ends it, not the call"
    assert tools["calculate"].klass is ToolClass.GENERIC
    assert sum(tool.klass is ToolClass.WRITE for tool in retail.tools) == 7


def test_gold_calls_satisfy_the_schemas_they_are_checked_against(retail: Tau2Scenario, base: tuple[Task, ...]) -> None:
    toolbox = Toolbox(retail.tools)
    problems = [toolbox.problem(ToolCall("c", c.name, c.arguments)) for task in base for c in task.gold]
    assert len(problems) > 500
    assert not any(problems)


def test_answers_and_end_states_equal_those_of_the_official_toolkit(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    from inspect_ai.tool import ToolError
    from inspect_ai.util import Store
    from inspect_evals.tau2.retail.RetailAgentTools import RetailAgentTools

    for task in random.Random(0).sample(base, 6):
        official = RetailAgentTools(store=Store(), instance=f"task{task.id}")
        official.initialize()
        world = retail.world(task)
        for call in task.gold:
            if call.name in ("calculate", "transfer_to_human_agents"):
                continue
            try:
                expected = getattr(official, call.name)(**call.arguments)
            except ToolError as error:
                expected = f"Error: {error.message}"
            assert world.execute(call.name, call.arguments).text == expected
        dump = official.db.model_dump()
        initial = retail.package.base.models
        theirs = {
            (table, key)
            for table, records in dump.items()
            for key, record in records.items()
            if record != initial[table][key].model_dump()
        }
        ours = {(row["table"], row["id"]): row["after"] for row in world.diff()}
        assert set(ours) == theirs
        assert all(dump[table][key] == after for (table, key), after in ours.items())


def test_only_writes_write_and_each_write_names_what_it_touched_and_whose_it_is(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    classes = {tool.name: tool.klass for tool in retail.tools}
    for task in base:
        world = retail.world(task)
        for call in task.gold:
            before = world.fingerprint()
            result = world.execute(call.name, call.arguments)
            changed = world.fingerprint() != before
            assert changed == bool(result.writes)
            assert not changed or classes[call.name] is ToolClass.WRITE
            for write in result.writes:
                assert write.entity in ("orders", "users")
                assert write.owner


def test_reads_leave_no_trace_in_the_fingerprint(retail: Tau2Scenario, base: tuple[Task, ...]) -> None:
    untouched, looked = retail.world(base[0]), retail.world(base[0])
    looked.execute("get_order_details", {"order_id": "#W2378156"})
    looked.execute("get_product_details", {"product_id": "1656367028"})
    looked.execute("list_all_product_types", {})
    looked.execute("find_user_id_by_email", {"email": "nobody@example.com"})
    assert looked.fingerprint() == untouched.fingerprint()
    assert looked.diff() == []


def test_worlds_of_one_task_do_not_see_each_other(retail: Tau2Scenario, base: tuple[Task, ...]) -> None:
    address = {
        "address1": "1 Elm Street", "address2": "", "city": "Austin", "country": "USA", "state": "TX", "zip": "78701"
    }  # fmt: skip
    task = next(task for task in base if task.writes)
    user_id = next(iter(retail.package.base.models["users"]))
    writer, reader = retail.world(task), retail.world(task)
    result = writer.execute("modify_user_address", {"user_id": user_id} | address)
    assert [(w.entity, w.id, w.owner) for w in result.writes] == [("users", user_id, user_id)]
    assert "1 Elm Street" in writer.execute("get_user_details", {"user_id": user_id}).text
    assert "1 Elm Street" not in reader.execute("get_user_details", {"user_id": user_id}).text
    found = {"first_name": "Nobody", "last_name": "Atall", "zip": "78701"}
    assert writer.execute("find_user_id_by_name_zip", found).text == "Error: User not found"


def test_a_refused_call_is_an_error_observation_in_upstreams_words(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    world = retail.world(base[0])
    result = world.execute("get_order_details", {"order_id": "#W0000000"})
    assert (result.text, result.ok, result.writes) == ("Error: Order not found", False, ())
    assert world.execute("calculate", {"expression": "1/0"}).text.startswith("Error: ")
    assert world.execute("calculate", {"expression": "(100.5 + 20) * 2"}).text == "241.0"


def _said(*texts: str) -> list[Event]:
    return [Event(i, Actor.AGENT, Kind.SAY, text) for i, text in enumerate(texts)]


def test_commas_are_taken_out_of_the_message_only_and_case_is_ignored() -> None:
    assert missing_texts(("8276.23",), _said("The total is $8,276.23.")) == ()
    assert missing_texts(("8,276.23",), _said("The total is $8,276.23.")) == ("8,276.23",)
    assert missing_texts(("Mastercard",), _said("on your MASTERCARD")) == ()
    assert missing_texts(("20 hours",), _said("20", "hours")) == ("20 hours",)


def test_words_of_the_user_do_not_count_as_communicated() -> None:
    heard = [Event(0, Actor.USER, Kind.SAY, "so it is 44.08, right?")]
    assert missing_texts(("44.08",), heard) == ("44.08",)


def test_an_end_that_is_not_graded_is_worth_nothing(retail: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(task for task in base if not task.writes and not task.communicate)
    world = retail.world(task)
    rewards = {
        reason: retail.outcome(task, world, [Event(0, Actor.RUNNER, Kind.END, reason.value)]).reward
        for reason in EndReason
    }
    assert {reason for reason, reward in rewards.items() if reward == 1.0} == {r for r in EndReason if r.graded}


def test_assertions_in_words_are_reported_as_unjudged_and_never_passed(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    asserted = [task for task in base if task.extra["nl_assertions"]]
    assert len(asserted) == 8
    assert all(set(task.bases) == {"db", "communicate"} for task in base)
    detail = retail.outcome(asserted[0], retail.world(asserted[0]), []).detail
    assert detail["nl_assertions"]["passed"] is None
    assert detail["nl_assertions"]["count"] == len(asserted[0].extra["nl_assertions"])
    assert detail["revision"]["tasks"]


def test_user_prompts_hold_the_guidelines_and_the_scenario_but_never_the_gold(
    retail: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    for task in base:
        prompt = retail.user_prompt(task)
        assert "###STOP###" in prompt
        assert "".join(task.brief["reason_for_call"].split()) in "".join(prompt.split())
        assert "gold" not in prompt.lower()
    assert retail.package.policy in retail.policy


def test_every_write_task_knows_its_last_effective_write(base: tuple[Task, ...]) -> None:
    for task in base:
        place = last_write(task)
        assert (place >= 0) == task.writes
        assert place < 0 or task.gold[place] is task.gold_writes[-1]


def test_unknown_domains_and_splits_name_the_known_ones(retail: Tau2Scenario) -> None:
    with pytest.raises(MuarlError) as unknown_domain:
        tau2_scenario("groceries")
    assert "retail" in unknown_domain.value.next_step
    with pytest.raises(MuarlError) as unknown_split:
        retail.tasks("dev")
    assert unknown_split.value.code is ExitCode.USAGE
    assert "test" in unknown_split.value.next_step


def test_an_absent_package_is_explained_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from muarl_cli.benchmarks.tau2_domains import DOMAINS
    from muarl_cli.benchmarks.tau2_package import Package

    monkeypatch.setitem(sys.modules, "inspect_evals", None)
    for name in [name for name in sys.modules if name.startswith("inspect_evals.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MuarlError) as absent:
        Package(DOMAINS["retail"])
    assert absent.value.code is ExitCode.MISSING_INPUT
    assert absent.value.next_step.startswith("pip install")
