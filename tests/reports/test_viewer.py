"""The data behind the viewer: state diffs, tokens, advantages, badges where they belong."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.conversation.episode import StateHashes
from muarl_cli.reports.replay import state_diffs
from muarl_cli.reports.run_view import RunView, load_runs
from muarl_cli.reports.viewer import CHUNK, viewer_data


def bodies(runs: list[RunView], tokens: int = 100) -> list[dict[str, Any]]:
    data = viewer_data(runs, tokens)
    return [body for chunk in data.chunks for body in json.loads(gzip.decompress(base64.b64decode(chunk)))]


def test_every_episode_is_in_the_index_and_its_body_at_the_same_place(runs: list[RunView]) -> None:
    data = viewer_data(runs, 0)
    index = json.loads(data.index)
    found = bodies(runs, 0)
    assert [e["id"] for e in index["episodes"]] == [b["facts"]["episode"] for b in found]
    assert len(found) == sum(len(run.episodes) for run in runs) == data.episodes
    assert len(data.chunks) == -(-len(found) // CHUNK)
    assert next(e["stage"] for e in index["episodes"]) == "eval", "a run's own episodes stand before its floors"


def test_a_long_run_is_shown_in_part_and_says_so(runs: list[RunView]) -> None:
    from muarl_cli.reports.page import report_page

    data = viewer_data(runs, 0, 6)
    assert data.episodes == 6 and {e["run"] for e in json.loads(data.index)["episodes"]} == {0, 1}
    total = sum(len(run.episodes) for run in runs)
    assert f"6 episodes, evenly spread; {total - 6} more" in report_page(runs, episodes=6)
    assert "evenly spread" not in report_page(runs)


def test_each_write_shows_what_it_changed(runs: list[RunView]) -> None:
    run = runs[0]
    diffs = state_diffs(run.own, run.tasks)
    for episode in run.own:
        writes = [e.i for e in episode.events if e.call and e.call.writes]
        assert sorted(diffs.get(episode.episode_id, {})) == writes
        for i in writes:
            assert diffs[episode.episode_id][i], "a write that changed nothing would be none"
            changed = {record["id"] for record in diffs[episode.episode_id][i]}
            call = episode.events[i].call
            assert call and changed <= {write.id for write in call.writes}


def test_a_replay_that_ends_elsewhere_is_not_shown(runs: list[RunView]) -> None:
    wrong = [replace(e, state=StateHashes(e.state.initial, "0" * 64, e.state.gold)) for e in runs[0].own]
    assert state_diffs(wrong, runs[0].tasks) == {}


def test_a_broken_rule_stands_at_the_event_that_broke_it(runs: list[RunView]) -> None:
    run = runs[1]
    by_id = {body["facts"]["episode"]: body for body in bodies([run])}
    marked = 0
    for key, judged in run.judged.items():
        for finding in judged.findings:
            (event,) = [e for e in by_id[key]["events"] if e["i"] == finding["at"]]
            marked += finding["rule"] in [f["rule"] for f in event["findings"]]
    assert marked == sum(len(judged.findings) for judged in run.judged.values()) > 0


def test_token_rows_come_with_owners_and_logprobs_of_sampled_ones_only(folders: dict[str, Path]) -> None:
    (run,) = load_runs([folders["hostile"]])
    found = [body["tokens"] for body in bodies([run]) if "tokens" in body]
    assert len(found) == len(run.episodes)
    assert found[0] == [{"text": ["1", "2", "3"], "owner": [0, 3, 3], "logprob": [None, -0.5, -3.0]}]
    assert len([b for b in bodies([run], 3) if "tokens" in b]) == 3 and not [
        b for b in bodies([run], 0) if "tokens" in b
    ]


def test_rl_episodes_show_their_advantage_and_others_none(runs: list[RunView]) -> None:
    assert not [body for body in bodies(runs) if "advantage" in body]
    own = runs[1].own
    episodes = tuple(replace(e, reward=float(i % 2), group_id=str(i // 4)) for i, e in enumerate(own))
    trained = replace(runs[1], stage="rl-train", settings={"advantage": "mean"}, episodes=episodes)
    assert {body["advantage"] for body in bodies([trained])} == {"-0.500", "+0.500"}
    flat = replace(trained, episodes=tuple(replace(e, reward=1.0) for e in episodes))
    assert {body["advantage"] for body in bodies([flat])} == {"none: the group was dropped (no_spread)"}


@pytest.mark.parametrize(
    ("reward", "credit", "method"),
    [
        ("outcome", "episode", "batch"),
        ("gated", "episode", "mean"),
        ("rubric", "episode", "mean_std"),
        ("rubric", "turn", "loo"),
    ],
)
def test_the_advantages_shown_are_those_that_the_step_was_trained_with(
    reward: str, credit: str, method: str, runs: list[RunView]
) -> None:
    from types import SimpleNamespace

    from muarl_cli.pipeline.rl_batches import Batch, Group, _compare
    from muarl_cli.reports.advantages import UNKNOWN_TASK, advantages
    from muarl_cli.scoring.rewards import reward_of

    episodes = [replace(e, stage="rl-train", group_id=e.task_id) for run in runs for e in run.own]
    episodes[0] = replace(episodes[0], valid=False, reward=None)
    chosen = {"reward": reward, "credit": credit, "advantage": method}
    trained = replace(runs[1], stage="rl-train", settings=chosen, episodes=tuple(episodes))
    batch = Batch()
    for task_id in dict.fromkeys(e.task_id for e in episodes):
        slots = [e for e in episodes if e.task_id == task_id]
        scenario, task = runs[1].tasks[slots[0].task_hash]
        batch.groups.append(Group(scenario, task, slots, [reward_of(reward, e, scenario, task) for e in slots]))
    batch.kept = [g for g in batch.groups if len({r for r in g.rewards if r is not None}) > 1]
    assert batch.kept, "without a group that differs nothing would be compared"
    _compare(batch, SimpleNamespace(**chosen))  # type: ignore[arg-type]
    shown = advantages(trained)
    for group in batch.kept:
        for episode, value in zip(group.episodes, group.advantages, strict=True):
            numbers = value if isinstance(value, tuple) else (value,)
            lead = "by turn: " if isinstance(value, tuple) else ""
            wanted = lead + ", ".join(f"{n:+.3f}" for n in numbers) if episode.valid else "none: the episode is invalid"
            assert shown[episode.episode_id].replace("-0.000", "+0.000") == wanted.replace("-0.000", "+0.000")
    assert len(shown) == len(episodes)
    if reward != "outcome":
        assert UNKNOWN_TASK in advantages(replace(trained, tasks={})).values()


@pytest.mark.parametrize("agent", ["careful", "hasty"])
def test_the_class_of_an_episode_follows_from_its_layers(agent: str, folders: dict[str, Path]) -> None:
    (run,) = load_runs([folders[agent]])
    classes = {e["id"]: e["class"] for e in json.loads(viewer_data([run], 0).index)["episodes"]}
    for episode in run.episodes:
        judged = run.judged[episode.episode_id]
        wanted = "clean" if judged.clean else "corrupt" if judged.corrupt else "failure"
        assert classes[episode.episode_id] == wanted
