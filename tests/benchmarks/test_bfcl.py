"""BFCL with its real package, in environments that `muarl bench install bfcl` makes from the registry."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.bfcl_brain import MODEL, BfclBrain
from fakes.openai_server import FakeOpenAI, Running

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks import gold
from muarl_cli.benchmarks.bfcl import UNREACHABLE, WRITES, bfcl_scenario
from muarl_cli.benchmarks.bfcl_package import MULTI_TURN, Package, Trial, open_package
from muarl_cli.cli.app import main
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.records.log import iter_episodes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments are: one folder for all test processes, made once."""
    return tmp_path_factory.getbasetemp().parent / "bfcl-home"


@pytest.fixture(autouse=True)
def _installed(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    monkeypatch.setenv("MUARL_HOME", str(place))
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["bench", "install", "bfcl"]) == 0, capfd.readouterr().err
    capfd.readouterr()
    yield


def _replay(name: str, split: str, ids: list[str], agent: Any) -> list[float]:
    scenario = bfcl_scenario(name)
    tasks = [task for task in scenario.tasks(split) if task.id in ids]
    return asyncio.run(gold._replay(scenario, tasks, agent))


@pytest.mark.parametrize("split", ["v3", "v4"])
def test_gold_passes_and_without_its_last_write_it_fails(split: str) -> None:
    for name in MULTI_TURN:
        ids = [f"multi_turn_{name}_{n}" for n in range(0, 200, 20)]
        assert _replay(name, split, ids, GoldReplay()) == [1.0] * 10
        writing = [task.id for task in bfcl_scenario(name).tasks(split) if task.id in ids and task.writes]
        assert len(writing) >= 8
        assert _replay(name, split, writing, GoldReplay(drop_last_write=True)) == [0.0] * len(writing)


def test_the_entry_with_more_gold_than_questions_fails_as_it_does_officially() -> None:
    (broken,) = UNREACHABLE["v3"]
    assert _replay("base", "v3", [broken], GoldReplay()) == [0.0]
    assert _replay("base", "v4", [broken], GoldReplay()) == [1.0]
    (task,) = (task for task in bfcl_scenario("base").tasks("v3") if task.id == broken)
    assert (len(task.extra["user_turns"]), len(task.extra["gold_turns"])) == (5, 6)
    assert bfcl_scenario("base").scorer_passes(task), "the gold itself is right: there is one question too few"
    without = replace(task, gold=(*task.gold[:-2], replace(task.gold[-2], arguments={}), task.gold[-1]))
    assert not bfcl_scenario("base").scorer_passes(without)


@pytest.mark.parametrize("split", ["v3", "v4"])
def test_no_tool_that_counts_as_a_read_changes_the_state_in_any_gold(split: str) -> None:
    changing = {
        call.name for name in MULTI_TURN for task in bfcl_scenario(name).tasks(split) for call in task.gold_writes
    }
    assert changing and changing <= WRITES


def test_what_is_no_tool_is_never_evaluated(tmp_path: Path) -> None:
    package = open_package("v4")
    category = package.category("base")
    trial = Trial(package, category.name, category.entries[0]["id"])
    target = tmp_path / "made"
    hostile = [
        ("open", {"file": str(target), "mode": "w"}),
        ("__import__", {"name": "os"}),
        ("mkdir(dir_name='x') or open", {"file": str(target), "mode": "w"}),
        ("pwd", {f"x=open({str(target)!r}, 'w'), y": 1}),
        ("_load_scenario", {"scenario": {}}),
    ]
    for name, arguments in hostile:
        answer = trial.call(name, arguments)
        assert not answer["ok"] and answer["text"].startswith("Error during execution"), name
    calls = [{"name": name, "arguments": arguments} for name, arguments in hostile]
    turns: list[Any] = [[] for _ in category.entries[0]["gold"]]
    turns[0] = [calls]
    verdict = package.server.ask("check", category=category.name, entry=category.entries[0]["id"], turns=turns)
    assert verdict["valid"] is False
    assert not target.exists()
    trial.close()


def test_two_trials_of_an_entry_share_nothing() -> None:
    package = open_package("v4")
    category = package.category("base")
    entry = category.entries[0]["id"]
    one, other = Trial(package, category.name, entry), Trial(package, category.name, entry)
    before = other.state()
    assert one.call("mkdir", {"dir_name": "only_here"})["writes"] == [["GorillaFileSystem", "root"]]
    assert one.state() != before == other.state()
    one.close()
    other.close()


def test_a_trial_survives_the_death_of_the_process() -> None:
    package = Package("v4")
    category = package.category("base")
    trial = Trial(package, category.name, category.entries[0]["id"])
    trial.call("mkdir", {"dir_name": "kept"})
    state = trial.state()
    os.kill(package.server.pid, signal.SIGKILL)
    while package.server.alive:
        time.sleep(0.01)
    assert trial.state() == state
    assert trial.call("mkdir", {"dir_name": "kept"})["ok"] is False
    trial.close()
    assert package.server.starts == 2
    package.server.close()


def test_a_held_tool_is_offered_from_its_turn_on_and_not_before(tmp_path: Path) -> None:
    entries = open_package("v4").category("miss_func").entries
    entry = next(e for e in entries if e["id"] == "multi_turn_miss_func_0")
    ((turn, (held, *_)),) = entry["held"].items()
    fake = FakeOpenAI(BfclBrain(entries))
    with Running(fake) as url:
        _served(tmp_path, url, "bfcl:miss_func:v4:multi_turn_miss_func_0")
    for request in fake.requests:
        asked = sum(message["role"] == "user" for message in request["body"]["messages"]) - 1
        offered = {tool["function"]["name"] for tool in request["body"]["tools"]}
        assert (held in offered) == (asked >= int(turn))
        assert request["body"]["messages"][0]["role"] == "user"  # no system prompt, as officially


def test_verdicts_on_a_model_that_errs_are_those_of_the_official_rules(tmp_path: Path) -> None:
    entries = open_package("v4").category("base").entries[:40]
    names = ",".join(f"bfcl:base:v4:{e['id']}" for e in entries)
    with Running(FakeOpenAI(BfclBrain(entries), keep_requests=False)) as url:
        _served(tmp_path, url, names)
    episodes = {e.task_id: e for e in iter_episodes(tmp_path / "run")}
    assert len(episodes) == 40
    path = tmp_path / "run" / "official" / "result" / MODEL / "multi_turn" / "BFCL_v4_multi_turn_base_result.json"
    rows = {row["id"]: row["result"] for row in map(json.loads, path.read_text().splitlines())}
    package = open_package("v4")
    failed = 0
    for entry in entries:
        turns = [
            [_calls(step) for step in turn if isinstance(step, list) and _calls(step)] for turn in rows[entry["id"]]
        ]
        verdict = package.server.ask("check", category="multi_turn_base", entry=entry["id"], turns=turns)
        assert episodes[entry["id"]].reward == float(verdict["valid"]), entry["id"]
        failed += not verdict["valid"]
    assert 0 < failed < 40
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = summary["official"]["bfcl:base"]
    assert found["accuracy"] == pytest.approx(1 - failed / 40)
    assert found["revision"] == {"package": "bfcl-eval 2026.3.23", "data": "BFCL_v4"}
    assert sum(found["failures"].values()) == failed


def test_a_step_that_cannot_be_read_ends_the_turn_and_executes_nothing() -> None:
    from muarl_cli.conversation.protocols import AgentTurn

    scenario = bfcl_scenario("base")
    world = scenario.world(scenario.tasks("v4")[0])
    referee = world.referee
    referee.turns.append([])
    unread = ToolCall("a", "pwd", {}, "not JSON", "{")
    turn = referee.reads(AgentTurn(calls=(ToolCall("b", "mkdir", {"dir_name": "x"}), unread)))
    assert turn.calls == () and turn.text == "{"
    assert referee.decoded(1) == [[]]
    world.close()


def test_the_parallel_category_is_judged_on_one_turn(tmp_path: Path) -> None:
    entries = open_package("v3").category("parallel").entries[:20]
    names = ",".join(f"bfcl:parallel:v3:{e['id']}" for e in entries)
    fake = FakeOpenAI(BfclBrain(entries, together=True))
    with Running(fake) as url:
        _served(tmp_path, url, names)
    episodes = list(iter_episodes(tmp_path / "run"))
    assert len(fake.requests) == len(episodes) == 20  # one request an entry
    rewards = [e.reward for e in episodes]
    assert 10 < sum(map(float, rewards)) < 20


def _served(folder: Path, url: str, tasks: str) -> None:
    common = ["eval", "--tasks", tasks, "--trials", "1", "--no-floors", "--out", str(folder / "run"), "bootstrap=100"]
    assert main([*common, "--model", MODEL, "--base-url", url]) == 0


def _calls(step: list[Any]) -> list[dict[str, Any]]:
    try:
        return [{"name": n, "arguments": json.loads(a)} for call in step for n, a in call.items()]
    except ValueError:
        return []
