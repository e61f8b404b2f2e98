"""The limits of the TAU-benches' own runners, in our loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from fakes.episodes import LIMITS, Played, play

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.official_limits import TAU1_STEPS, TAU2_STEPS, tau1_limits, tau2_limits
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentTurn
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.parties import Agents, Users
from muarl_cli.pipeline.play import Player, job, limits_of
from muarl_cli.records.log import EpisodeLog
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import OFFICIAL_LIMITS, resolve
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")
LOOK = "list_all_product_types"


class Endless(GoldReplay):
    """Calls the same tool for ever, with words to the user after every `calls` of them."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def open(self, stage: Any, task: Any) -> Any:
        session, calls = super().open(stage, task), self.calls
        made = 0

        async def act(news: Sequence[Event]) -> AgentTurn:
            nonlocal made
            made += 1
            if made % (calls + 1) == 0:
                return AgentTurn(text="Still looking.")
            return AgentTurn(calls=(ToolCall(f"c{made}", LOOK, {}),))

        session.act = act
        return session


@pytest.fixture(scope="module")
def retail() -> Tau2Scenario:
    return tau2_scenario("retail")


@pytest.fixture(scope="module")
def task(retail: Tau2Scenario) -> Task:
    return retail.tasks("test")[0]


def steps(played: Played) -> int:
    """Calls and words of the agent after the greeting."""
    events = [e for e in played.transcript.events if e.actor is Actor.AGENT and "greeting" not in e.tags]
    return sum(e.kind in (Kind.SAY, Kind.CALL) for e in events)


@pytest.mark.parametrize("calls", [1, 4, 1000])
async def test_tau1_ends_after_thirty_steps_of_the_agent_whatever_they_are(
    retail: Tau2Scenario, task: Task, calls: int
) -> None:
    played = await play(retail, task, Endless(calls), MinimalUsers(), limits=tau1_limits(LIMITS))
    assert steps(played) == TAU1_STEPS == 30
    assert played.transcript.end.reason is EndReason.LIMIT_AGENT


async def test_tau2_ends_after_two_hundred_messages_and_not_on_a_repeated_call(
    retail: Tau2Scenario, task: Task
) -> None:
    played = await play(retail, task, Endless(1000), MinimalUsers(), limits=tau2_limits(LIMITS))
    kinds = (Kind.SAY, Kind.CALL, Kind.RESULT)
    messages = sum(e.kind in kinds and "greeting" not in e.tags for e in played.transcript.events)
    assert abs(messages - TAU2_STEPS) <= 1
    assert played.transcript.end.reason is EndReason.LIMIT_AGENT


def _ended(folder: Path, retail: Tau2Scenario, task: Task, official: str) -> str:
    settings: Any = resolve(
        Stage.EVAL,
        overrides=[f"official_limits={official}", "user.backend=scripted", "limits.max_turns=60"],
        environ={},
    ).settings
    limits = replace(limits_of(settings), max_seconds=60.0)
    agents = Agents("do-nothing")
    agents.of = lambda scenario, seed: Endless(1000)  # type: ignore[method-assign]
    with EpisodeLog.open(folder) as log:
        player = Player(agents, Users(settings.user, {}, 0.0, folder), limits, 1, log)

        (episode,) = asyncio.run(player.run([job("run", "eval", 0, retail, task, 0, 1)]))
    return episode.end.detail


def test_an_evaluation_takes_the_official_limits_unless_told_otherwise(
    tmp_path: Path, retail: Tau2Scenario, task: Task
) -> None:
    for name in ("own", "official"):
        (tmp_path / name).mkdir()
    assert _ended(tmp_path / "own", retail, task, "false") == "the same call 3 times in a row"
    assert _ended(tmp_path / "official", retail, task, "true") == "100 counted turns"
    assert resolve(Stage.EVAL, environ={}).settings.official_limits  # type: ignore[attr-defined]


def test_a_limit_that_a_person_names_counts_and_is_no_official_one() -> None:
    def found(*words: str, profile: str = "", config: Path | None = None) -> Any:
        return resolve(Stage.EVAL, overrides=words, profile_name=profile, config=config, environ={})

    named = found("bench=tau2", "limits.max_turns=6")
    assert named.settings.limits.max_turns == 6 and not named.settings.official_limits
    assert named.origins["official_limits"].startswith("implied by limits.max_turns")
    with pytest.raises(MuarlError, match=r"max_turns would have no effect"):
        found("bench=tau2", "limits.max_turns=6", "official_limits=true")
    assert found("bench=bfcl", "limits.max_turns=6").settings.official_limits, "it has no limits of its own there"
    assert found("bench=tau2", profile="tiny").settings.official_limits, "a profile's limits are for its own tasks"


@pytest.mark.parametrize("limits", [tau1_limits, tau2_limits])
def test_what_official_limits_replace_is_what_the_settings_know_of(limits: Any) -> None:
    before = LIMITS
    changed = {f"limits.{f.name}" for f in fields(before) if getattr(limits(before), f.name) != getattr(before, f.name)}
    assert changed and changed <= set(OFFICIAL_LIMITS)


def test_a_file_with_all_settings_gives_the_same_settings(tmp_path: Path) -> None:
    first = resolve(Stage.EVAL, overrides=["bench=tau2"], environ={})
    (tmp_path / "all.yaml").write_text(first.yaml())
    assert resolve(Stage.EVAL, config=tmp_path / "all.yaml", environ={}).settings == first.settings
