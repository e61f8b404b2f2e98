"""Rewards beyond the outcome: criteria, gates, and what each turn earned; on conversations that were really held."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.parties import scripted_agent, scripted_user
from muarl_cli.pipeline.play import job, play
from muarl_cli.scoring.rewards import agent_turns, derived_criteria, reward_of, rubric, turn_rewards
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)
RETAIL = builtin("retail")


@lru_cache(maxsize=64)
def held(kind: str, number: int) -> tuple[Episode, Task]:
    task = RETAIL.tasks("dev")[number]
    work = job("run", "rollout", 0, RETAIL, task, 0, 1)
    return asyncio.run(play(work, scripted_agent(kind, RETAIL), scripted_user(RETAIL), LIMITS)), task


def many(kind: str, count: int = 30) -> list[tuple[Episode, Task]]:
    return [held(kind, number) for number in range(count)]


def test_the_oracle_meets_every_criterion_and_the_idle_agent_none_that_needs_work() -> None:
    for episode, task in many("oracle"):
        assert reward_of("rubric", episode, RETAIL, task) == 1.0
    shares = [reward_of("rubric", episode, RETAIL, task) for episode, task in many("do-nothing") if task.writes]
    assert all(share is not None and share < 1.0 for share in shares)
    wanted = [rubric(episode, task) for episode, task in many("do-nothing") if task.writes]
    assert all(not each.holds for judged in wanted for each in judged if each.what.startswith("call"))


def test_a_part_of_the_work_is_a_part_of_the_rubric_and_nothing_of_the_outcome() -> None:
    parts = 0
    for episode, task in many("oracle"):
        if len(task.gold_writes) < 2:
            continue
        last = max(e.i for e in episode.events if e.call and e.call.klass is ToolClass.WRITE and e.call.ok)
        cut = replace(episode, events=episode.events[: last - 1], reward=0.0)
        share = reward_of("rubric", cut, RETAIL, task)
        assert share is not None and 0.0 < share < 1.0 and reward_of("outcome", cut, RETAIL, task) == 0.0
        parts += 1
    assert parts > 3


def test_a_gate_takes_the_reward_of_a_success_that_broke_the_policy() -> None:
    hasty = [(reward_of("gated", e, RETAIL, t), e.reward) for e, t in many("hasty")]
    careful = [(reward_of("gated", e, RETAIL, t), e.reward) for e, t in many("careful")]
    assert any(outcome == 1.0 and gated == 0.0 for gated, outcome in hasty)
    assert all(gated == outcome == 1.0 for gated, outcome in careful)


@pytest.mark.parametrize("kind", ["outcome", "rubric", "gated"])
def test_an_invalid_episode_has_no_reward_and_the_turns_of_a_valid_one_add_up_to_its(kind: str) -> None:
    for agent in ("oracle", "hasty", "do-nothing"):
        for episode, task in many(agent, 12):
            whole = reward_of(kind, episode, RETAIL, task)
            turns = turn_rewards(kind, episode, RETAIL, task)
            assert whole is not None and turns is not None
            assert sum(turns) == pytest.approx(whole) and len(turns) == len(agent_turns(episode.events))
    broken = replace(episode, valid=False, reward=None, end=replace(episode.end, reason=EndReason.USER_FAULT))
    assert reward_of(kind, broken, RETAIL, task) is None
    assert turn_rewards(kind, broken, RETAIL, task) is None


@pytest.mark.parametrize("kind", ["outcome", "rubric", "gated"])
def test_who_runs_into_a_limit_earns_nothing_whatever_was_done_before(kind: str) -> None:
    """A rubric would pay for what was left alone: going in circles would be worth most of a success."""
    episode, task = held("oracle", 0)
    looped = replace(episode, reward=0.0, end=replace(episode.end, reason=EndReason.LIMIT_AGENT))
    assert reward_of(kind, looped, RETAIL, task) == 0.0
    turns = turn_rewards(kind, looped, RETAIL, task)
    assert turns is not None and set(turns) == {0.0} and len(turns) == len(agent_turns(episode.events))


def test_a_rubric_pays_at_the_turn_that_did_it() -> None:
    episode, task = next((e, t) for e, t in many("oracle") if len(t.gold_writes) > 1)
    turns = turn_rewards("rubric", episode, RETAIL, task)
    starts = agent_turns(episode.events)
    for event in episode.events:
        if event.actor is Actor.AGENT and event.call and event.call.klass is ToolClass.WRITE:
            number = sum(1 for start in starts if start <= event.i) - 1
            assert turns is not None and turns[number] > 0


def test_a_task_may_declare_its_own_criteria() -> None:
    episode, task = held("oracle", 0)
    call = task.gold_writes[0] if task.gold_writes else task.gold[0]
    own: list[dict[str, Any]] = [
        {"call": call.name},
        {"call": call.name, "arguments": {"nothing": "like it"}},
        {"state": "gold"},
        {"said": "a sentence that nobody says"},
    ]
    asked = replace(task, extra={**task.extra, "criteria": own})
    assert [each.holds for each in rubric(episode, asked)] == [True, False, True, False]
    assert reward_of("rubric", episode, RETAIL, asked) == 0.5
    with pytest.raises(MuarlError, match="no known form"):
        rubric(episode, replace(task, extra={"criteria": [{"said_by_user": "x"}]}))
    assert len(derived_criteria(task)) == len(task.gold_writes) + len(task.communicate) + 2
