"""Pipeline A: a model plays the tools; how often it differs from them is told with an interval that holds the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.openai_server import FakeOpenAI, Running
from fakes.tool_brain import ToolBrain

from muarl_cli.cli.app import main
from muarl_cli.conversation.events import Actor, ToolClass
from muarl_cli.records.log import iter_episodes
from muarl_cli.verification.coverage import by_coverage
from muarl_cli.verification.disagreement import rate, same
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.memory import problem

DOMAINS = [builtin("retail"), builtin("library")]
TASKS = [(domain, task) for domain in DOMAINS for task in by_coverage(domain.tasks("train"))[:80]]


def _synth(url: str, out: Path, *words: str) -> int:
    tools = ["--tools", "simulated", "--tool-model", "fake-tools", "--tool-base-url", url]
    return main(["synth-coldstart", "--scenarios", "retail,library", *tools, "--out", str(out), *words])


@pytest.mark.parametrize("lies", [0.0, 0.15])
def test_the_interval_of_the_disagreement_holds_the_rate_at_which_the_model_lies(tmp_path: Path, lies: float) -> None:
    brain = ToolBrain(TASKS, lies=lies)
    with Running(FakeOpenAI(brain, keep_requests=False)) as url:
        assert _synth(url, tmp_path / "run", "--count", "40", "--accept", "all") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = summary["tools_disagree"]
    assert set(found) == {"builtin:retail", "builtin:library"}
    for row in found.values():
        assert row["calls"] >= 60 and row["low"] <= lies <= row["high"]
    assert sum(row["events"] for row in found.values()) == brain.lied
    assert sum(row["calls"] for row in found.values()) == brain.answered
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["tools"] == found and "Simulated tools" in (tmp_path / "run" / "card.md").read_text()


def test_what_an_honest_tool_model_served_is_accepted_and_verified_again(tmp_path: Path) -> None:
    brain = ToolBrain(TASKS, spoilt=0.3)
    fake = FakeOpenAI(brain)
    with Running(fake) as url:
        assert _synth(url, tmp_path / "run", "--count", "10") == 0
    assert brain.unreadable >= 10, "replies that are no answers are asked for again"
    assert main(["verify", str(tmp_path / "run")]) == 0
    for episode in iter_episodes(tmp_path / "run"):
        for event in episode.events:
            if event.actor is Actor.WORLD and event.call and event.call.klass in (ToolClass.READ, ToolClass.WRITE):
                assert event.tags == ("simulated",)
    prompts = [request["body"]["messages"][0]["content"] for request in fake.requests]
    assert all("<database>" in prompt and "<schema>" in prompt for prompt in prompts)


def test_a_tool_model_that_never_answers_makes_faults_of_the_tool_and_no_demonstration(tmp_path: Path) -> None:
    class Silent(ToolBrain):
        def say(self, messages: object, seed: int) -> str:
            return "hm"

    with Running(FakeOpenAI(Silent(TASKS), keep_requests=False)) as url:
        assert _synth(url, tmp_path / "run", "--count", "2", "max_attempts=2") == 65
    episodes = list(iter_episodes(tmp_path / "run"))
    reached = [e for e in episodes if not e.valid]
    assert reached and all(e.end.reason == "tool_fault" and "no answers" in e.end.detail for e in reached)


def test_simulated_tools_need_a_model_and_a_model_needs_simulated_tools(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["synth-coldstart", "--tools", "simulated", *out]) == 78
    assert main(["synth-coldstart", "--tool-model", "x", *out]) == 78


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_the_memory_is_small_conforms_to_the_schema_and_holds_what_the_task_needs(domain) -> None:  # type: ignore[no-untyped-def]
    whole = sum(len(records) for records in domain._tables.values())
    for task in domain.tasks("dev")[:25]:
        memory = domain.memory(task, 3)
        assert problem(memory, domain.schema) == ""
        assert sum(len(records) for records in memory.values()) < whole / 8
        keys = {key for records in memory.values() for key in records}
        named = {str(v) for call in task.gold for v in call.arguments.values() if str(v).isdigit() and len(str(v)) == 4}
        assert named <= keys
        assert domain.memory(task, 3) == memory


def test_a_record_that_does_not_fit_the_schema_is_named() -> None:
    library = builtin("library")
    memory = library.memory(library.tasks("dev")[0], 1)
    table = next(name for name, records in memory.items() if records)
    broken = memory | {table: {"x": {"nonsense": 1}}}
    assert table in problem(broken, library.schema)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ((True, '{"a": 1, "b": 2}'), (True, '{"b": 2, "a": 1.0}'), True),
        ((True, "ok"), (True, "OK."), True),
        ((False, "Error: no order 1"), (False, "Error: there is no such order"), True),
        ((True, "ok"), (False, "Error: no"), False),
        ((True, '{"a": 1}'), (True, '{"a": 2}'), False),
    ],
)
def test_answers_are_compared_by_what_they_mean(one: tuple[bool, str], other: tuple[bool, str], equal: bool) -> None:
    assert same(one, other) is equal


def test_a_rate_of_none_has_an_upper_bound_and_no_calls_say_nothing() -> None:
    assert rate([(0, 5)] * 20).low == 0 and 0.1 < rate([(0, 5)] * 20).high < 0.2
    assert (rate([]).low, rate([]).high) == (0.0, 1.0)
