"""TAU2 telecom: two parties act on one world, each with tools of its own."""

from __future__ import annotations

import pytest
from fakes.episodes import Played, play, play_all

from muarl_cli.agents.floors import DoNothing, TransferOnly, plausible
from muarl_cli.agents.gold_replay import GoldReplay, last_write
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind, ToolClass
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.training.demonstrations import encode_episode
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task, stage_of

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


@pytest.fixture(scope="module")
def telecom() -> Tau2Scenario:
    return tau2_scenario("telecom")


@pytest.fixture(scope="module")
def base(telecom: Tau2Scenario) -> tuple[Task, ...]:
    return tuple(telecom.tasks("base"))


async def _gold(telecom: Tau2Scenario, tasks: tuple[Task, ...]) -> list[Played]:
    return await play_all(telecom, tasks, GoldReplay(), MinimalUsers())


def test_telecom_has_its_official_splits_tools_and_bases(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    sizes = {split: len(telecom.package.splits[split]) for split in telecom.splits()}
    assert sizes == {"small": 20, "train": 74, "test": 40, "base": 114, "full": 2285}
    assert (len(telecom.tools), len(telecom.user_tools)) == (13, 30)
    assert sum("action" in task.bases for task in base) == 20
    assert all("env_assertion" in task.bases for task in base)
    assert len({task.task_hash for task in base}) == 114, "tasks with the same words differ by their initial state"


async def test_gold_replay_solves_all_114_with_both_parties_acting(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    played = await _gold(telecom, base)
    assert [p.task.id for p in played if p.outcome.reward != 1.0] == []
    assert len(played) == 114
    assert all(p.outcome.detail["completion"] == 1.0 for p in played)
    by = [e.actor for p in played for e in p.transcript.events if e.kind is Kind.CALL]
    gold = [call.requestor for task in base for call in task.gold]
    assert (by.count(Actor.USER), by.count(Actor.AGENT)) == (gold.count("user"), gold.count("agent"))


async def test_without_the_last_write_of_either_party_the_task_fails(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    writing = [task for task in base if task.writes]
    played = await play_all(telecom, writing, GoldReplay(drop_last_write=True), MinimalUsers())
    assert len(writing) == 94
    assert {p.outcome.reward for p in played} == {0.0}
    assert {task.gold[last_write(task)].requestor for task in writing} == {"agent", "user"}


async def test_what_the_user_does_on_their_device_is_not_shown_to_the_agent(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    seen: list[str] = []

    class Watching(GoldReplay):
        def open(self, stage, task):  # type: ignore[no-untyped-def]
            session = super().open(stage, task)
            act = session.act

            async def watched(news):  # type: ignore[no-untyped-def]
                seen.extend(event.text for event in news)
                assert all(event.actor is not Actor.USER or event.kind is Kind.SAY for event in news)
                return await act(news)

            session.act = watched  # type: ignore[method-assign]
            return session

    task = next(t for t in base if {c.requestor for c in t.gold} == {"user"})
    found = await play(telecom, task, Watching(), MinimalUsers())
    answers = [e.text for e in found.transcript.events if e.actor is Actor.WORLD]
    assert answers
    assert not set(answers) & set(seen)


async def test_the_end_of_every_assertion_decides_and_its_share_is_reported(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    task = max(base, key=lambda t: len(t.extra["env_assertions"]))
    idle = await play(telecom, task, DoNothing(), MinimalUsers())
    assert idle.outcome.reward == 0.0
    assert idle.outcome.detail["bases"]["env_assertion"] is False
    assert 0.0 <= idle.outcome.detail["completion"] < 1.0


async def test_handing_over_solves_exactly_the_tasks_that_ask_for_it_and_idling_none(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    idle = await play_all(telecom, base, DoNothing(), MinimalUsers())
    handed = await play_all(telecom, base, TransferOnly(), MinimalUsers())
    assert sum(p.outcome.reward for p in idle) == 0
    assert {p.task.id for p in handed if p.outcome.reward == 1.0} == {t.id for t in base if "action" in t.bases}
    assert {p.transcript.end.reason for p in handed} == {EndReason.TRANSFER}


def test_episodes_share_nothing_not_even_the_phone_s_defaults(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    broken = next(t for t in base if any(
        a["func_name"] == "break_vpn" for a in t.extra["initial_state"]["initialization_actions"]
    ))  # fmt: skip
    world = telecom.world(broken)
    fresh = telecom.world(broken)
    world.execute("disconnect_vpn", {}, "user")
    assert world.fingerprint() != fresh.fingerprint()
    assert fresh.fingerprint() == telecom.world(broken).fingerprint()
    world.execute("connect_vpn", {}, "user")
    again = telecom.world(base[0])
    again.execute("connect_vpn", {}, "user")
    assert '"excellent"' in again.execute("check_vpn_status", {}, "user").text.lower() or "excellent" in (
        again.execute("check_vpn_status", {}, "user").text.lower()
    )


def test_only_writes_change_the_state_on_either_side(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    for task in base[:12]:
        for requestor, tools in (("agent", telecom.tools), ("user", telecom.user_tools)):
            world = telecom.world(task)
            before = world.fingerprint()
            for tool in tools:
                result = world.execute(tool.name, plausible(tool.parameters), requestor)
                after = world.fingerprint()
                assert (after != before) == bool(result.writes), tool.name
                assert tool.klass is ToolClass.WRITE or after == before, tool.name
                before = after


def test_an_id_that_a_tool_makes_up_is_the_same_every_time(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if any(call.name == "refuel_data" for call in t.gold))
    states = set()
    for _ in range(2):
        world = telecom.world(task)
        for call in task.gold:
            world.execute(call.name, call.arguments, call.requestor)
        states.add(world.fingerprint())
    assert states == {telecom.gold_state(task)}


def test_a_whole_number_and_the_same_float_do_the_same(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    task = next(t for t in base if any(call.name == "refuel_data" for call in t.gold))
    refuel = next(call for call in task.gold if call.name == "refuel_data")
    answers = {
        telecom.world(task).execute("refuel_data", {**refuel.arguments, "gb_amount": amount}).text
        for amount in (2, 2.0)
    }
    assert len(answers) == 1


def test_gold_calls_satisfy_the_schemas_of_their_party(telecom: Tau2Scenario, base: tuple[Task, ...]) -> None:
    boxes = {"agent": Toolbox(telecom.tools), "user": Toolbox(telecom.user_tools)}
    calls = [call for task in base for call in task.gold]
    assert not [c for c in calls if boxes[c.requestor].problem(ToolCall("c", c.name, c.arguments))]


def test_the_user_of_a_task_gets_the_guidelines_for_users_with_tools(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    prompt = telecom.user_prompt(base[0])
    assert "###STOP###" in prompt
    assert "tool" in telecom.user_guidelines.lower()
    assert telecom.user_guidelines != tau2_scenario("retail").user_guidelines
    assert stage_of(telecom, 0).user_tools == telecom.user_tools


async def test_a_training_row_holds_no_token_of_what_the_user_did_alone(
    telecom: Tau2Scenario, base: tuple[Task, ...]
) -> None:
    from muarl_cli.training.chat_format import ChatFormat, Rendering
    from muarl_cli.training.tokenizer import make_tokenizer

    task = next(t for t in base if {c.requestor for c in t.gold} == {"user"})
    found = await play(telecom, task, GoldReplay(), MinimalUsers())
    answers = [e.text for e in found.transcript.events if e.actor is Actor.WORLD]
    chat = ChatFormat(make_tokenizer([task.brief["reason_for_call"], *answers], 700), Rendering.COMPACT)
    (row,) = encode_episode(stage_of(telecom, 0), found.transcript.events, chat)
    text = chat.text_of(row.ids)
    assert row.ids
    assert not any(answer in text for answer in answers)
