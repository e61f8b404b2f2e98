"""The audit of simulated users: silent on a clean log, and each planted bug of a simulator is found by its metric."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fakes.planted_users import PLANTS, clean, opening, user_turns, with_text

from muarl_cli.cli.app import main
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, Episode
from muarl_cli.records.log import EpisodeLog
from muarl_cli.users import style
from muarl_cli.users.audit import METRICS, audit
from muarl_cli.users.audit_report import html, tables
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN

JUDGED = {metric.id for metric in METRICS} - {"S9", "S12", "S16", "S17"}
"""metrics with a gate for scripted users"""


@cache
def log(name: str = "retail") -> tuple[Episode, ...]:
    return tuple(clean(name, tasks=20))


def as_model(episodes: Sequence[Episode]) -> list[Episode]:
    return [replace(e, user={**e.user, "backend": "llm"}) for e in episodes]


@pytest.mark.parametrize("name", BUILTIN)
def test_a_clean_log_passes_every_gate_and_every_gate_is_judged(name: str) -> None:
    group = audit(log(name)).groups[0]
    assert group.failed == []
    assert {result.metric.id for result in group.results if result.passed} == JUDGED
    assert all(not result.examples for result in group.results if result.passed is not None)


@pytest.mark.parametrize("name", BUILTIN)
def test_injectors_are_no_faults(name: str) -> None:
    everything = {injector.value: 1.0 for injector in Injector}
    assert audit(clean(name, tasks=40, trials=2, injectors=everything)).failed == []


@pytest.mark.parametrize("metric", PLANTS)
def test_each_planted_bug_is_found_by_its_metric_with_an_episode_to_look_at(metric: str) -> None:
    group = audit(PLANTS[metric](log())).groups[0]
    assert metric in group.failed
    result = group[metric]
    assert result.examples or metric in ("S10", "S11b")
    ids = {episode.episode_id for episode in log()}
    assert all(example.split(":")[0] in ids for example in result.examples)


@pytest.mark.parametrize("metric", sorted(set(PLANTS) - {"S3", "S9", "S15", "S10", "S11b"}))
def test_bugs_are_found_in_a_log_of_a_model_as_well(metric: str) -> None:
    # the agenda opens its later requests with half of their facts, which a model must not
    assert audit(as_model(log())).groups[0].failed == ["S3"]
    assert metric in audit(PLANTS[metric](as_model(log()))).groups[0].failed


def test_a_bug_in_one_dialogue_of_many_fails_a_scripted_user_and_not_a_model() -> None:
    one = opening(log()[0], "my phone number is 5550199.")
    scripted = audit([one, *log()[1:]]).groups[0]
    assert "S1" in scripted.failed and scripted["S1"].value == 1 / len(log())
    model = audit(as_model([one, *log()[1:]])).groups[0]
    assert "S1" not in model.failed and model["S1"].value == 1 / len(log())


def test_groups_are_back_ends_and_personas() -> None:
    half = len(log()) // 2
    terse = [replace(e, user={**e.user, "persona": {"verbosity": "terse"}}) for e in log()[half:]]
    groups = audit([*log()[:half], *terse]).groups
    assert [(g.backend, g.persona, g.episodes) for g in groups] == [
        ("scripted", "", half),
        ("scripted", '{"verbosity":"terse"}', len(log()) - half),
    ]
    assert groups[1]["S15"].value is None and groups[1]["S15"].reason == "a persona words the turns"


def test_what_cannot_be_judged_is_null_with_the_reason_and_fails_no_gate() -> None:
    group = audit(log()).groups[0]
    for metric, word in (("S16", "compare"), ("S17", "judge")):
        assert group[metric].value is None and word in group[metric].reason and group[metric].passed is None
    strange = [replace(e, scenario="builtin:nowhere") for e in log()]
    blind = audit(strange).groups[0]
    assert blind["S1"].value is None and "nowhere" in blind["S1"].reason
    assert blind["S7"].value == 0 and blind["S10"].value is not None and blind.failed == []
    changed = audit([replace(e, task_hash="0" * 16) for e in log()]).groups[0]
    assert changed["S4"].value is None and "task with the hash" in changed["S4"].reason


def test_faults_are_counted_and_a_fault_is_no_stop() -> None:
    dead = [replace(e, end=End(EndReason.USER_FAULT, "empty"), valid=False, reward=None) for e in log()[:3]]
    group = audit([*dead, *log()[3:]]).groups[0]
    assert group.faults == 3 and group.failed == []


def test_the_order_of_episodes_changes_no_figure() -> None:
    one, other = (audit(episodes).groups[0] for episodes in (log(), log()[::-1]))
    for a, b in zip(one.results, other.results, strict=True):
        assert a.n == b.n and (a.value is None) == (b.value is None)
        assert a.value is None or a.value == pytest.approx(b.value)


def test_examples_do_not_depend_on_the_order_of_sets() -> None:
    """Which values are named, and in which order, must not change with Python's hash seed."""
    from muarl_cli.users.facts import Vocabulary

    words = ("walnut", "silver", "express", "blue", "large", "paypal", "ebony", "amber")
    assert Vocabulary(frozenset(words), {}).values_in(" ".join(words)) == sorted(words)


def test_echoing_the_agent_is_no_invention_and_no_leak() -> None:
    episode = log()[0]
    turn = user_turns(episode)[-1]
    agent = next(e for e in reversed(episode.events[: turn.i]) if e.heard_by_user())
    heard = with_text(episode, agent.i, agent.text + " your new case number is 771234.")
    assert audit([with_text(heard, turn.i, turn.text + " so it is 771234.")]).groups[0]["S1"].value == 0


# --- style ---------------------------------------------------------------------------------------------------------


def test_figures_of_style_are_those_of_their_definitions() -> None:
    assert style.mattr([]) is None
    assert style.mattr(["a", "b", "a", "a"], window=2) == pytest.approx((1 + 1 + 0.5) / 3)
    assert style.mattr(["a", "b", "a"]) == pytest.approx(2 / 3)
    assert style.copied("one two three four five six seven", ["he said one two three four five six"]) == 0.5
    assert style.copied("too short", ["too short"]) is None
    assert style.likeness({"t": ["a b", "b c", "a b"]}) == (
        pytest.approx((1 / 3 + 1 + 1 / 3) / 3),
        pytest.approx(1 / 3),
    )
    assert style.likeness({"t": ["alone"]}) == (None, None)


# --- the command ---------------------------------------------------------------------------------------------------


def write(folder: Path, episodes: Sequence[Episode]) -> Path:
    with EpisodeLog.open(folder) as file:
        file.append_many(episodes)
    return folder


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.rows += tag == "tr"
        assert tag not in ("script", "link", "img")


def test_the_command_prints_json_writes_html_and_the_gate_decides_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write(tmp_path / "good", log()), write(tmp_path / "bad", PLANTS["S1"](log()))
    assert main(["users", "audit", str(good), "--gate"]) == 0
    assert "grounding violations" in capsys.readouterr().out
    assert main(["users", "audit", str(bad)]) == 0
    capsys.readouterr()
    page = tmp_path / "audit.html"
    assert main(["users", "audit", str(bad), "--gate", "--json", "--html", str(page)]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["passed"] and "scripted/S1" in shown["failed"]
    reader = _Tags()
    reader.feed(page.read_text())
    assert reader.rows == len(METRICS) + 1
    assert main(["users", "audit", str(tmp_path / "none")]) not in (0, 1)


def test_text_of_a_log_is_no_markup_in_the_page() -> None:
    evil = [replace(e, user={**e.user, "persona": "<script>alert(1)</script>\x1b[2J"}) for e in log()[:4]]
    page = html(audit(evil), "<b>log</b>")
    assert "<script>" not in page and "<b>" not in page and "\x1b" not in page
    assert len(tables(audit(evil))) == 1
