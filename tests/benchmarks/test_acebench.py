"""ACEBench from a checkout (MUARL_ACEBENCH_DIR): loaded, played, and never evaluating what a model made up."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.acebench_brain import MODEL, AceBrain
from fakes.openai_server import FakeOpenAI, Running

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks import gold
from muarl_cli.benchmarks.acebench import UNSEEN, acebench_scenario
from muarl_cli.benchmarks.acebench_package import KINDS, LANGUAGES, VARIABLE, open_checkout
from muarl_cli.cli.app import main
from muarl_cli.errors import MuarlError
from muarl_cli.records.log import iter_episodes

CHECKOUT = os.environ.get(VARIABLE, "")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason=f"ACEBench is no package; name a checkout of it in {VARIABLE}")


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, CHECKOUT)
    yield


def test_all_hundred_entries_are_loaded_and_every_goal_is_reached() -> None:
    for kind, count in zip(KINDS, (30, 20), strict=True):
        for language in LANGUAGES:
            found = gold.gold_count(acebench_scenario(kind), language, unseen=UNSEEN)
            assert (found.tasks, found.passed, found.as_expected) == (count, count, True)


def test_a_misspelt_class_is_passed_over_officially_and_not_in_the_strict_score() -> None:
    scenario = acebench_scenario("multi_turn")
    task = next(task for task in scenario.tasks("en") if task.id == "agent_multi_turn_7")
    details = []
    judge = scenario.outcome
    scenario.outcome = lambda *given: details.append(judge(*given)) or details[-1]  # type: ignore[method-assign]
    try:
        asyncio.run(gold._replay(scenario, [task], GoldReplay(drop_last_write=True)))
    finally:
        del scenario.outcome  # type: ignore[method-assign]
    assert details[0].reward == 1.0 and details[0].detail["strict"] is False


def test_no_text_of_a_model_is_evaluated_beyond_calls_with_literals(tmp_path: Path) -> None:
    checkout = open_checkout()
    checkout.entries("en", "multi_turn")
    checkout.entries("en", "multi_step")
    target = tmp_path / "made"
    made = f"open({str(target)!r}, 'w')"
    hostile = [
        f"[send_message(sender_name={made}.name + '', receiver_name='x', message='y')]",
        f"[search_messages(user_name=open(file={str(target)!r}, mode='w'), keyword='a')]",
        f"[search_messages(user_name={{'open': {{'file': {str(target)!r}, 'mode': 'w'}}}}, keyword='a')]",
        f"[search_messages(user_name=[1, {made} + 1], keyword='a')]",
        f"[open(file={str(target)!r}, mode='w')]",
        f"[(lambda: {made})()]",
        "[send_message(sender_name=10 ** 10 ** 10, receiver_name='x', message='y')]",
    ]
    for kind in KINDS:
        trial = f"hostile_{kind}"
        checkout.server.ask("open", trial=trial, language="en", entry=f"agent_{kind}_3")
        state = checkout.server.ask("state", trial=trial)
        for text in hostile:
            if checkout.server.ask("decode", kind=kind, text=text):
                checkout.server.ask("execute", trial=trial, text=text)
        assert checkout.server.ask("state", trial=trial) == state
        checkout.server.ask("close", trial=trial)
    assert not target.exists()


@pytest.mark.parametrize("split", ["en", "en-tools"])
def test_both_manners_are_played_by_a_served_model(
    split: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = [entry for kind in KINDS for entry in open_checkout().entries("en", kind)]
    fake = FakeOpenAI(AceBrain(entries) if split == "en" else _Tools())
    with Running(fake) as url:
        parties = ["--model", MODEL, "--base-url", url, "--user-model", MODEL, "--user-base-url", url]
        common = ["eval", "--bench", "acebench", "--acebench-dir", CHECKOUT, "--split", split, "--max-tasks", "10"]
        assert main([*common, *parties, "--trials", "1", "--no-floors", "--out", str(tmp_path / "run")]) == 0
    official = json.loads((tmp_path / "run" / "summary.json").read_text())["official"]
    assert all(0 <= official[f"acebench:{kind}"][key] <= 1 for kind in KINDS for key in ("end_to_end", "process"))
    assert len(official["acebench:multi_turn"]["defects"]) >= 5
    episodes = list(iter_episodes(tmp_path / "run"))
    assert len(episodes) == 10 and all(episode.valid for episode in episodes)
    agents = [r["body"] for r in fake.requests if "tools" in r["body"] or len(r["body"]["messages"]) == 2]
    if split == "en":
        assert official["acebench:multi_turn"]["process"] > 0.3
        assert not any("tools" in body for body in agents)
    else:
        assert {"[turn_on_wifi()]"} <= {text for e in episodes for text in e.detail["result"]["process"]}


class _Tools:
    """Calls one tool, then closes; as the user, opens and goes on."""

    models = (MODEL,)

    def message(self, body: dict[str, object]) -> dict[str, object]:
        if "tools" not in body:
            return {"content": "Please help me."}
        done = sum(m["role"] == "assistant" for m in body["messages"])  # type: ignore[attr-defined]
        if done:
            return {"content": "finish conversation"}
        call = {"id": "a", "type": "function", "function": {"name": "turn_on_wifi", "arguments": "{}"}}
        return {"content": None, "tool_calls": [call]}


def test_a_folder_that_is_no_checkout_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(MuarlError, match="no checkout of ACEBench"):
        open_checkout()
