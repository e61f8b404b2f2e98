"""EV-02: who does nothing, calls at random, lists every answer or says yes to everything never gets a clean success."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from fakes.bad_agents import BadAgents
from scoring.judged_talks import talk

from muarl_cli.scoring.layers import Layer, Layered, Verdict, judge
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.scenario import Task

TASKS = 24
each = pytest.mark.parametrize("name", BUILTIN)
MUST_FAIL = {
    "random-tool": (Layer.OUTCOME, {"read_before_write", "confirm_before_write", "tell_what_was_done"}),
    "list-all": (Layer.COMMUNICATION, {"tell_what_was_done"}),
    "say-yes": (Layer.SAFETY, {"no_false_claims"}),
    "do-nothing": (Layer.OUTCOME, set()),
}
"""the layer that each fails in every task with a write, and the rules it breaks on its way"""


@cache
def judged(name: str, kind: str) -> list[tuple[Task, Any, Layered]]:
    domain = builtin(name)
    agent: Any = kind if kind == "do-nothing" else BadAgents(domain, kind)
    rows = [(task, talk(domain, task, agent)) for task in domain.tasks("test")[:TASKS]]
    return [(task, episode, judge(episode, domain, task)) for task, episode in rows]


def hands_over(task: Task) -> bool:
    """After the write a human takes over, so that nothing is left to report."""
    return any(call.name == "transfer_to_human_agents" for call in task.gold)


@each
@pytest.mark.parametrize("kind", MUST_FAIL)
def test_no_clean_success_on_tasks_with_a_write(name: str, kind: str) -> None:
    rows = [row for row in judged(name, kind) if row[0].writes and not (kind == "list-all" and hands_over(row[0]))]
    assert len(rows) >= 12
    layer, rules = MUST_FAIL[kind]
    for task, _, layered in rows:
        assert not layered.clean_success, task.id
        assert layered.verdict(layer) is Verdict.FAIL, (task.id, sorted(layered.failed_rules))
    assert rules <= {rule for _, _, layered in rows for rule in layered.failed_rules}


@each
@pytest.mark.parametrize("kind", ["random-tool", "say-yes"])
def test_the_score_on_write_tasks_is_no_better_than_doing_nothing(name: str, kind: str) -> None:
    won = sum(episode.reward for task, episode, _ in judged(name, kind) if task.writes)
    floor = sum(episode.reward for task, episode, _ in judged(name, "do-nothing") if task.writes)
    assert won <= floor


@each
@pytest.mark.parametrize("kind", ["random-tool", "say-yes", "do-nothing"])
def test_where_nothing_is_to_be_written_there_is_no_clean_success_either(name: str, kind: str) -> None:
    assert not any(layered.clean_success for task, _, layered in judged(name, kind) if not task.writes)


@each
def test_listing_every_answer_is_the_only_thing_wrong_with_the_lister(name: str) -> None:
    for task, _, layered in judged(name, "list-all"):
        if task.writes and not hands_over(task) and layered.verdict(Layer.OUTCOME) is Verdict.PASS:
            assert layered.failed_rules == {"tell_what_was_done"}, task.id
