"""Scenarios from a server file alone: bad files, tasks in words, tasks from a language, whole stages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.notes import close_pool, notes, notes_file
from fakes.talks import LIMITS

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.cli.app import main
from muarl_cli.conversation.loop import converse
from muarl_cli.errors import MuarlError
from muarl_cli.records.log import iter_episodes
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.catalog import load_tasks
from muarl_cli.worlds.mcp.definition import read_server
from muarl_cli.worlds.mcp.scenario import SHIPPED, McpScenario, register, server_of
from muarl_cli.worlds.scenario import stage_of

LANGUAGE: dict[str, Any] = {
    "policy": "Ask who it is and what to note, propose, and note it after a yes.",
    "greeting": "welcome to the notes!",
    "compact": "notes.",
    "subject": "who",
    "sizes": {"test": 8, "train": 30},
    "values": {
        "who": ["nora", "paul", "rosa"],
        "thing": ["bread", "butter", "apples", "soap", "candles", "rice", "salt"],
        "shop": ["the market", "the bakery", "the corner shop"],
    },
    "slots": {
        "who": {"words": "your name", "hear": "name|who", "tell": ["i am {v}."]},
        "thing": {
            "words": "the thing",
            "hear": "thing|what",
            "tell": ["{v}, please.", "it is {v}."],
            "change": ["actually, {v}."],
        },
        "shop": {"words": "the shop", "hear": "shop|where", "tell": ["from {v}."], "change": ["no, from {v}."]},
    },
    "intents": {
        "buy": {
            "slots": ["who", "thing"],
            "look": {"list_notes": {}},
            "steps": [{"add_note": {"text": "{who} needs {thing}"}}],
            "open": ["something is missing.", "put something on the list."],
            "propose": "note {thing} for {who}",
            "done": "{thing} is on the list",
            "changes": ["thing"],
        },
        "fetch": {
            "slots": ["who", "thing", "shop"],
            "look": {"list_notes": {}},
            "steps": [
                {"add_note": {"text": "{who} goes to {shop}"}},
                {"add_note": {"text": "{who} brings {thing}"}},
            ],
            "open": ["i will fetch something."],
            "propose": "note for {who}: {thing} from {shop}",
            "done": "{thing} from {shop} is noted",
            "changes": ["thing", "shop"],
        },
    },
}


async def play(scenario: McpScenario, agents: Any, number: int) -> float:
    task = scenario.tasks("test")[number]
    stage, world = stage_of(scenario, 0), scenario.world(task)
    talk = await converse(
        agents.open(stage, task), MinimalUsers().open(stage, task), world, greeting="hello!", limits=LIMITS
    )
    reward = scenario.outcome(task, world, talk.events).reward
    world.close()
    return reward


async def test_tasks_in_words_are_graded_by_the_state_and_by_what_was_said(tmp_path: Path) -> None:
    scenario = notes(tmp_path)
    assert [await play(scenario, GoldReplay(), n) for n in (0, 1)] == [1.0, 1.0]
    assert [await play(scenario, GoldReplay(drop_last_write=True), n) for n in (0, 1)] == [0.0, 1.0]
    assert [await play(scenario, DoNothing(), n) for n in (0, 1)] == [0.0, 0.0]
    close_pool(scenario)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": None}, "tools is missing"),
        ({"tols": {}}, "unknown key 'tols'"),
        ({"mode": "new"}, "unknown mode 'new'"),
        ({"snapshot": {"kind": "memory"}}, "unknown snapshot kind 'memory'"),
        ({"reset": {"sql": ""}}, "unknown reset 'sql'"),
        ({"tools": {"add_note": "change"}}, "'change' is not a valid ToolClass"),
        ({"command": "notes"}, "command is a list"),
        ({"timeout": 0}, "timeout is above 0"),
        ({"failed": "("}, "missing ), unterminated subpattern"),
        ({"name": "My Notes"}, "is no lower-case word"),
    ],
)
def test_a_bad_server_file_is_named_with_its_key(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    path = notes_file(tmp_path, **more)
    with pytest.raises(MuarlError) as error:
        read_server(path)
    assert said in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"command": ["no-such-program-anywhere"]}, "was not found"),
        ({"command": ["{python}", "-c", "raise SystemExit('out of order')"]}, "out of order"),
        ({"tools": {"fly": "write"}}, "has no tool 'fly'"),
        ({"reset": {"folder": "nowhere"}}, "initial state"),
        ({"reset": {"command": ["false"]}}, "initial state"),
        ({"reset": {"sqlite": {"notes.db": "CREATE TABLE"}}}, "initial state"),
        ({"packages": ["some-package==1"]}, "is not installed"),
    ],
)
def test_a_server_that_cannot_serve_says_why_and_what_to_do(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    scenario = notes(tmp_path, **more)
    with pytest.raises(MuarlError) as error:
        _ = scenario.tools
    assert said in str(error.value) and (error.value.next_step or "").strip()
    close_pool(scenario)


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    with pytest.raises(MuarlError, match="is taken"):
        register(notes_file(tmp_path, name=SHIPPED[0]))
    first = notes_file(tmp_path)
    name = register(first)
    assert register(first) == name, "the same file again is the same scenario"
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(MuarlError, match="is taken"):
        register(notes_file(other, name=name))


def test_too_few_values_for_the_wanted_tasks_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    scenario = notes(tmp_path, scenario={**LANGUAGE, "sizes": {"test": 5000}})
    with pytest.raises(MuarlError, match="no more than"):
        scenario.tasks("test")


def test_a_language_with_missing_values_is_refused(tmp_path: Path) -> None:
    values = {key: LANGUAGE["values"][key] for key in ("who", "thing")}
    with pytest.raises(MuarlError, match="cannot be read") as error:
        notes(tmp_path, scenario={**LANGUAGE, "values": values})
    assert "no values for shop" in str(error.value)


def test_the_cold_start_runs_on_a_server_from_a_file_alone(tmp_path: Path, capfd: Any) -> None:
    path = notes_file(tmp_path, scenario=LANGUAGE)
    name = yaml.safe_load(path.read_text())["name"]
    out = tmp_path / "cold"
    code = main(
        [
            "synth-coldstart",
            "--mcp-server",
            str(path),
            "--scenarios",
            name,
            "--count",
            "20",
            "--out",
            str(out),
            "--json",
        ]
    )
    summary = json.loads(capfd.readouterr().out)
    assert (code, summary["accepted"]) == (0, 20)
    episodes = list(iter_episodes(out))
    assert all(episode.reward == 1.0 for episode in episodes)
    assert {e.scenario for e in episodes} == {f"mcp:{name}"}
    writes = [e.call for episode in episodes for e in episode.events if e.call and e.call.writes]
    assert writes and all(call.name == "add_note" for call in writes)
    assert server_of(name).name == name
    assert len(load_tasks([f"mcp:{name}:test"])) == 8


@pytest.mark.slow
def test_a_rollout_of_hasty_and_careful_agents_differs_on_such_a_server(tmp_path: Path, capfd: Any) -> None:
    path = notes_file(tmp_path, scenario=LANGUAGE)
    name = yaml.safe_load(path.read_text())["name"]
    scores = {}
    for agent in ("oracle", "hasty"):
        argv = ["rollout", "--mcp-server", str(path), "--agent", agent, "--tasks", f"mcp:{name}:test"]
        assert main([*argv, "--out", str(tmp_path / agent), "--json"]) == 0
        scores[agent] = json.loads(capfd.readouterr().out)["score"]["mean"]
    assert scores["oracle"] == 1.0 and scores["hasty"] < 1.0


@pytest.mark.slow
def test_check_finds_gold_calls_that_do_not_work(tmp_path: Path, capfd: Any) -> None:
    good = notes_file(tmp_path)
    assert main(["mcp", "check", str(good), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)[str(good)]
    assert all(row["passed"] for row in found.values()) and "add_note" in found["tools"]["seen"]
    tasks = [{"instruction": "You want it closed.", "gold": [{"refuse": {}}]}]
    bad = notes_file(tmp_path, scenario={"tasks": tasks})
    assert main(["mcp", "check", str(bad), "--json"]) == 1
    found = json.loads(capfd.readouterr().out)[str(bad)]
    assert found["reset"]["passed"] and not found["gold calls"]["passed"]


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cache without servers, whatever this machine's holds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("nothing_installed")
def test_the_scenarios_of_the_package_are_listed_without_starting_any(capfd: Any) -> None:
    assert main(["mcp", "list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert tuple(rows) == SHIPPED and not any(row["installed"] for row in rows.values())


@pytest.mark.usefixtures("nothing_installed")
def test_a_server_that_is_not_installed_stops_a_stage_before_its_first_episode(tmp_path: Path, capfd: Any) -> None:
    code = main(["rollout", "--agent", "oracle", "--tasks", f"mcp:{SHIPPED[0]}:test", "--out", str(tmp_path / "run")])
    assert code == 66 and f"muarl mcp install {SHIPPED[0]}" in capfd.readouterr().err


def test_without_the_extra_it_is_named_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    path = notes_file(tmp_path)
    name = yaml.safe_load(path.read_text())["name"]
    argv = ["rollout", "--mcp-server", str(path), "--agent", "gold-replay", "--tasks", f"mcp:{name}:test"]
    assert main([*argv, "--out", str(tmp_path / "run")]) == 66
    assert "muarl-cli[mcp]" in capfd.readouterr().err
