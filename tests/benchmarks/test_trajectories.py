"""Official trajectories become episodes: what they say is kept, and nothing is graded again (EV-13)."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.benchmarks.trajectories import import_trajectories, read_trajectories
from muarl_cli.cli.app import main
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind, ToolClass, Write
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.rescore import rescore
from muarl_cli.worlds.task_file import read_tasks, write_tasks

ROOT = os.environ.get("MUARL_TAU1_ROOT", "")

CANCEL = {"name": "cancel_reservation", "kwargs": {"reservation_id": "AB12CD"}}


def say(role: str, text: str | None, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": text, **({"tool_calls": list(calls)} if calls else {})}


def tau1_call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{number}", "type": "function", "function": function}


def tau1_answer(number: int, name: str, value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value)
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": name, "content": text}


def tau1(*, asks: bool = True, closing: str | None = "thanks ###STOP###", reward: float = 1.0) -> dict[str, Any]:
    """One trajectory: a reservation is read and cancelled."""
    record = {"reservation_id": "AB12CD", "user_id": "mia_li_3668", "passengers": [{"first_name": "Mia"}]}
    messages = [
        say("system", "the policy"),
        say("user", "please cancel reservation AB12CD. i am mia_li_3668."),
        say("assistant", "let me look", tau1_call(1, "get_reservation_details", reservation_id="AB12CD")),
        tau1_answer(1, "get_reservation_details", record),
    ]
    if asks:
        messages += [say("assistant", "Cancel reservation AB12CD?"), say("user", "yes")]
    messages += [
        say("assistant", None, tau1_call(2, "cancel_reservation", reservation_id="AB12CD")),
        tau1_answer(2, "cancel_reservation", {**record, "status": "cancelled"}),
    ]
    if closing is not None:
        messages += [say("assistant", "Your reservation has been cancelled."), say("user", closing)]
    told = {"user_id": "mia_li_3668", "actions": [CANCEL], "instruction": "cancel AB12CD", "outputs": []}
    return {"task_id": 0, "trial": 0, "reward": reward, "info": {"task": told}, "traj": messages}


def tau2(reason: str = "user_stop", **more: Any) -> dict[str, Any]:
    """The same conversation in TAU2's form."""
    read = {"id": "a", "name": "get_reservation_details", "arguments": {"reservation_id": "AB12CD"}}
    write = {"id": "b", "name": "cancel_reservation", "arguments": {"reservation_id": "AB12CD"}}
    record = json.dumps({"reservation_id": "AB12CD", "user_id": "mia_li_3668"})
    messages = [
        say("assistant", "Hi! How can I help you today?"),
        say("user", "please cancel reservation AB12CD. i am mia_li_3668."),
        say("assistant", None, read),
        {"role": "tool", "id": "a", "content": record, "requestor": "assistant", "error": False},
        say("assistant", "Cancel reservation AB12CD?"),
        say("user", "yes"),
        say("assistant", None, write),
        {"role": "tool", "id": "b", "content": record, "requestor": "assistant", "error": False},
        say("assistant", "It has been cancelled."),
        say("user", "###STOP###"),
    ]
    simulation = {
        "id": "s1", "task_id": "7", "trial": 2, "seed": 11, "termination_reason": reason, "messages": messages,
        "reward_info": {"reward": 1.0, "db_check": {"db_match": True, "db_reward": 1.0}}, **more,
    }  # fmt: skip
    criteria = {"actions": [{"name": "cancel_reservation", "arguments": {"reservation_id": "AB12CD"}}]}
    task = {"id": "7", "user_scenario": {"instructions": "cancel"}, "evaluation_criteria": criteria}
    info = {"environment_info": {"domain_name": "airline", "policy": "p"}, "agent_info": {"llm": "some-model"}}
    return {"info": info, "tasks": [task], "simulations": [simulation]}


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_messages_of_tau1_become_events_and_nothing_is_lost(tmp_path: Path) -> None:
    found = read_trajectories(written(tmp_path / "gpt.json", [tau1()]))
    (episode,) = found.episodes
    assert (found.source, found.domain, episode.reward, episode.agent["model"]) == ("tau1", "airline", 1.0, "gpt")
    kinds = [(event.actor, event.kind) for event in episode.events]
    assert kinds == [
        (Actor.USER, Kind.SAY), (Actor.AGENT, Kind.SAY), (Actor.AGENT, Kind.CALL), (Actor.WORLD, Kind.RESULT),
        (Actor.AGENT, Kind.SAY), (Actor.USER, Kind.SAY), (Actor.AGENT, Kind.CALL), (Actor.WORLD, Kind.RESULT),
        (Actor.AGENT, Kind.SAY), (Actor.USER, Kind.SAY), (Actor.RUNNER, Kind.END),
    ]  # fmt: skip
    assert episode.events[1].tags == ("beside_calls",) and episode.events[9].text == "thanks"
    answer = episode.events[7].call
    assert answer and answer.klass is ToolClass.WRITE
    assert answer.writes == (Write("reservations", "AB12CD", "mia_li_3668"),)


def test_both_forms_of_the_same_conversation_are_judged_alike(tmp_path: Path) -> None:
    for name, value in (("one", [tau1()]), ("two", tau2())):
        folder = tmp_path / name
        import_trajectories(written(tmp_path / f"{name}.json", value), folder)
        summary = rescore(folder)["labels"]["eval"]
        failed = {rule for rule, entry in summary["rules"].items() if entry["failed"]}
        assert failed == ({"one_step_at_a_time"} if name == "one" else set())
        assert summary["behaviour"]["confirmation_discipline"] == 1.0


def test_a_corrupt_success_in_an_official_log_is_found(tmp_path: Path) -> None:
    rows = [tau1(asks=False) | {"trial": 0}, tau1() | {"trial": 1}]
    import_trajectories(written(tmp_path / "a.json", rows), tmp_path / "a")
    rules = rescore(tmp_path / "a")["labels"]["eval"]["rules"]
    assert rules["confirm_before_write"]["failed"] == rules["nothing_final_without_a_yes"]["failed"] == 1


@pytest.mark.parametrize(
    ("closing", "reason"),
    [
        ("bye ###STOP###", EndReason.USER_STOP),
        ("###TRANSFER###", EndReason.TRANSFER),
        ("and then?", EndReason.LIMIT_AGENT),
        (None, EndReason.LIMIT_AGENT),
    ],
)
def test_how_a_tau1_conversation_ended_is_read_off_its_last_words(
    tmp_path: Path, closing: str | None, reason: EndReason
) -> None:
    reward = 1.0 if reason.graded else 0.0
    (episode,) = read_trajectories(written(tmp_path / "a.json", [tau1(closing=closing, reward=reward)])).episodes
    assert episode.end.reason is reason and episode.valid


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("user_stop", EndReason.USER_STOP),
        ("max_steps", EndReason.LIMIT_AGENT),
        ("user_error", EndReason.USER_FAULT),
        ("infrastructure_error", EndReason.INFRA_FAULT),
    ],
)
def test_ends_of_tau2_count_as_our_table_says(tmp_path: Path, said: str, reason: EndReason) -> None:
    (episode,) = read_trajectories(written(tmp_path / "results.json", tau2(said))).episodes
    assert episode.end.reason is reason and episode.valid is reason.valid
    assert episode.reward == (1.0 if reason.valid else None)


def test_simulations_may_lie_beside_the_results(tmp_path: Path) -> None:
    results = tau2()
    (tmp_path / "simulations").mkdir()
    written(tmp_path / "simulations" / "s1.json", results["simulations"][0])
    written(tmp_path / "results.json", results | {"simulations": []})
    (episode,) = read_trajectories(tmp_path).episodes
    assert (episode.rollout, episode.seed, episode.agent["model"]) == (2, 11, "some-model")


def test_the_same_file_twice_adds_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", [tau1()])
    assert import_trajectories(path, tmp_path / "a")["added"] == 1
    assert import_trajectories(path, tmp_path / "a")["added"] == 0
    assert len(list(iter_episodes(tmp_path / "a"))) == 1


def test_tasks_come_back_with_their_hash_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    task = read_trajectories(written(tmp_path / "a.json", [tau1()])).tasks[0]
    write_tasks(tmp_path, [task])
    assert read_tasks(tmp_path) == {task.task_hash: task}
    file = tmp_path / "tasks.jsonl"
    file.write_text(file.read_text().replace("AB12CD", "XXXXXX"))
    with pytest.raises(MuarlError) as error:
        read_tasks(tmp_path)
    assert error.value.code == ExitCode.BAD_DATA and "tasks.jsonl:1" in error.value.where


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"a": 1}, ExitCode.BAD_DATA),
        ([{"task_id": 0}], ExitCode.BAD_DATA),
        ([], ExitCode.USAGE),
        (tau2("sudden_death"), ExitCode.BAD_DATA),
        (tau2(reward_info=None), ExitCode.BAD_DATA),
    ],
)
def test_what_is_no_trajectory_is_explained_with_its_place(tmp_path: Path, value: Any, code: ExitCode) -> None:
    path = written(tmp_path / "a.json", value)
    with pytest.raises(MuarlError) as error:
        read_trajectories(path)
    assert error.value.code == code and str(path) in error.value.where and error.value.next_step


def test_the_command_imports_and_rescores(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.json", [tau1()])
    assert main(["import", "trajectories", str(path), "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["scenario"] == "tau1:airline"
    assert main(["rescore", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["without_task"] == 0


@pytest.mark.skipif(not ROOT, reason="TAU1 is no package: name a checkout with MUARL_TAU1_ROOT")
def test_the_public_airline_log_gives_its_published_figures(tmp_path: Path) -> None:
    program = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "measure" / "import_tau1.py"))
    found = program["measure"](Path(ROOT), tmp_path / "run")
    assert [round(found["pass_hat"][f"k{k}"]["mean"], 3) for k in (1, 2, 3, 4)] == [0.42, 0.273, 0.22, 0.2]
    assert round(found["pass_hat"]["k1"]["low"], 2) == 0.32 and round(found["pass_hat"]["k1"]["high"], 2) == 0.52
    assert (found["write_tasks"], found["no_write_tasks"], found["idle_tasks"]) == (0.225, 0.7125, 19)
    assert (found["all_correct"], found["all_wrong"]) == (0.2, 0.28)
    assert (found["tool_calls"], found["writes_tried"], found["writing_conversations"]) == (1164, 250, 118)
    assert (found["handed_over"], found["should_hand_over"]) == (48, 6) and round(found["turns"], 1) == 13.3
