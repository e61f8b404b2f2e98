"""The curves of a step, from real conversations of scripted agents whose behaviour is known."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.conversation.limits import Limits
from muarl_cli.pipeline.parties import Agents, Users
from muarl_cli.pipeline.play import Player, job
from muarl_cli.pipeline.rl_batches import Batch, Group, step_metrics
from muarl_cli.pipeline.rl_metrics import behaviour_metrics
from muarl_cli.pipeline.rollout import take
from muarl_cli.records.log import EpisodeLog
from muarl_cli.reports.curves import PANELS
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.groups import User
from muarl_cli.settings.resolve import resolve
from muarl_cli.training.watchdogs import RULES
from muarl_cli.worlds.catalog import load_tasks

SCRIPTED: User = resolve(Stage.ROLLOUT, overrides=["user.backend=scripted"], environ={}).settings.user  # type: ignore[attr-defined]
LIMITS = Limits(30, 0, 3, 10, 60.0)
OF_THE_UPDATE = {"kl", "entropy", "grad_norm", "mismatch_k3"}
"""what `GrpoTrainer.update` measures"""


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Batch]:
    """A batch an agent, on the same tasks."""
    tasks = take(load_tasks(["builtin:retail:dev"]), 6)
    return {agent: _batch(tmp_path_factory.mktemp(agent), agent, tasks) for agent in ("careful", "hasty", "do-nothing")}


def _batch(folder: Path, agent: str, tasks: list[Any]) -> Batch:
    batch = Batch()
    with EpisodeLog.open(folder) as log:
        player = Player(Agents(agent), Users(SCRIPTED, {}, 0.0, folder), LIMITS, 8, log)
        for scenario, task in tasks:
            jobs = [job("run", "rl-train", 1, scenario, task, slot, 1) for slot in range(4)]
            episodes = asyncio.run(player.run(jobs))
            batch.groups.append(Group(scenario, task, episodes, [e.reward for e in episodes]))
            batch.episodes += len(episodes)
    return batch


def test_every_panel_of_the_paper_and_every_watchdog_has_its_figure(batches: dict[str, Batch]) -> None:
    row = step_metrics(batches["careful"]) | behaviour_metrics(batches["careful"])
    for title, names in PANELS:
        assert OF_THE_UPDATE & set(names) or any(row.get(name) is not None for name in names), title
    for rule in RULES.values():
        assert rule.metric in OF_THE_UPDATE or math.isfinite(row[rule.metric]), rule.metric


def test_who_does_nothing_writes_nothing_and_is_rewarded_only_without_a_write(batches: dict[str, Batch]) -> None:
    row = behaviour_metrics(batches["do-nothing"])
    assert row["writes_per_episode"] == 0 and row["generic_calls"] == 0
    assert row["idle_success_share"] == step_metrics(batches["do-nothing"])["outcome"]
    assert behaviour_metrics(batches["careful"])["writes_per_episode"] > 0.5


def test_a_success_that_broke_a_rule_is_a_corrupt_one(batches: dict[str, Batch]) -> None:
    assert behaviour_metrics(batches["careful"])["corrupt_success_share"] == 0
    hasty = behaviour_metrics(batches["hasty"])["corrupt_success_share"]
    assert 0 < hasty <= step_metrics(batches["hasty"])["outcome"]


def test_both_turn_counts_are_there_and_differ_by_what_they_count(batches: dict[str, Batch]) -> None:
    row = step_metrics(batches["careful"]) | behaviour_metrics(batches["careful"])
    events = [e.events for g in batches["careful"].groups for e in g.episodes]
    says = sum(ev.actor == "user" and ev.kind == "say" for one in events for ev in one) / len(events)
    assert row["turns"] == pytest.approx(says + row["tool_calls"])
    assert 0 < row["agent_turns"] != row["turns"]


def test_the_order_of_episodes_changes_no_figure(batches: dict[str, Batch]) -> None:
    batch = batches["hasty"]
    wanted = behaviour_metrics(batch)
    for seed in range(4):
        groups = [
            Group(g.scenario, g.task, [g.episodes[i] for i in order], [g.rewards[i] for i in order])
            for g in batch.groups
            for order in [random.Random(seed).sample(range(4), 4)]
        ]
        random.Random(seed).shuffle(groups)
        found = behaviour_metrics(Batch(groups=groups, episodes=batch.episodes))
        assert found.pop("calls_by_tool") == pytest.approx(wanted["calls_by_tool"])
        assert found == pytest.approx({name: value for name, value in wanted.items() if name != "calls_by_tool"})


def test_a_spread_and_a_fault_are_what_they_say(batches: dict[str, Batch]) -> None:
    group = batches["careful"].groups[0]
    batch = Batch(groups=[Group(group.scenario, group.task, group.episodes, [1.0, 0.0, None, 0.5])], episodes=5)
    batch.faults["user_fault"] = 1
    row = behaviour_metrics(batch)
    assert row["reward_spread"] == pytest.approx(math.sqrt(1 / 6)) and row["fault_share"] == pytest.approx(0.2)
