"""Filters: what the careful agent does passes all of them, and each kind of damage is rejected for its own reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from scoring.judged_talks import talk, talks
from verification.damage import DAMAGES, damaged, plain_tasks

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.verification.filters import chain
from muarl_cli.verification.subject import Filter, Subject
from muarl_cli.verification.verify import Verified, verify
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.scenario import Task

CHECKS = chain("verified", 200)
NAMES = [name for name in BUILTIN if name in ("retail", "library")]


def _verified(name: str, episode: Episode, task: Task | None) -> Verified:
    return verify(Subject(episode, builtin(name), task), CHECKS)


@cache
def _plain(name: str) -> Sequence[tuple[Task, Episode]]:
    domain = builtin(name)
    every = [task for split in ("test", "dev", "train") for task in domain.tasks(split)]
    return [(task, talk(domain, task, "careful")) for task in plain_tasks(domain, every)[:4]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("agent", ["careful", "oracle"])
def test_what_a_good_agent_does_passes_every_filter(name: str, agent: str) -> None:
    for task, episode in talks(name, agent):
        verified = _verified(name, episode, task)
        assert verified.accepted, [str(reason) for reason in verified.reasons]
        assert set(verified.asked) == set(CHECKS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_is_rejected_for_its_own_reason(name: str, kind: str) -> None:
    domain = builtin(name)
    cases = _plain(name)
    assert len(cases) >= 3
    for task, episode in cases:
        assert _verified(name, episode, task).accepted
        broken = replace(episode, events=tuple(damaged(kind, domain, task, episode.events)))
        keys = {reason.key for reason in _verified(name, broken, task).reasons}
        assert any(key.startswith(DAMAGES[kind][1]) for key in keys), keys


@pytest.mark.parametrize("name", NAMES)
def test_a_hasty_demonstration_that_won_is_rejected_by_the_rules_alone(name: str) -> None:
    won = [(task, episode) for task, episode in talks(name, "hasty") if episode.reward == 1 and task.writes]
    assert len(won) >= 5
    for task, episode in won:
        verified = _verified(name, episode, task)
        assert {reason.filter for reason in verified.reasons} == {Filter.RULES}
        assert verify(Subject(episode, builtin(name), task), chain("outcome", 200)).accepted


def test_a_faulty_episode_is_rejected_for_its_fault_and_asked_nothing_else() -> None:
    task, episode = _plain("retail")[0]
    fault = replace(
        episode, valid=False, reward=None, end=replace(episode.end, reason=EndReason.INFRA_FAULT, detail="gone")
    )
    verified = _verified("retail", fault, task)
    assert [reason.key for reason in verified.reasons] == ["ended/infra_fault"] and verified.asked == (Filter.ENDED,)
    assert verified.checks()["rules"] == "na"


def test_an_accepted_reward_is_not_believed_without_the_calls_that_earn_it() -> None:
    task, episode = _plain("library")[0]
    silent = tuple(event for event in episode.events if event.call is None)
    forged = replace(episode, events=tuple(replace(event, i=i) for i, event in enumerate(silent)))
    keys = {reason.key for reason in _verified("library", forged, task).reasons}
    assert forged.reward == 1 and "state/replay_not_gold" in keys


def test_an_unknown_task_is_no_pass() -> None:
    _, episode = _plain("library")[0]
    keys = {reason.key for reason in _verified("library", episode, None).reasons}
    assert "state/no_task" in keys


@pytest.mark.parametrize(("accept", "asked"), [("all", 1), ("outcome", 2), ("verified", len(CHECKS))])
def test_the_setting_says_how_much_is_asked(accept: str, asked: int) -> None:
    assert len(chain(accept, 200)) == asked


def test_a_verdict_names_every_filter_and_counts_each_kind_once() -> None:
    task, episode = talks("retail", "hasty")[0]
    row: dict[str, Any] = _verified("retail", episode, task).to_json()
    assert set(row["checks"]) == {f.value for f in Filter} and not row["accepted"]
    assert row["checks"]["rules"] == "fail" and row["checks"]["judges"] == "na"
    assert row["codes"] == sorted(set(row["codes"])) and all(
        code.split("/")[0] in row["checks"] for code in row["codes"]
    )
