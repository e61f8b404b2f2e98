"""The installed `muarl` as real processes through all five stages, each on what the one before it wrote."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, GoldBrain, Running, scenarios_of
from fakes.stages import (
    PROFILE,
    STAGES,
    Place,
    has_begun,
    has_checkpoint,
    has_episodes,
    hashes,
    refusals,
    summary,
)

from muarl_cli.errors import ExitCode
from muarl_cli.records.checkpoint import load_latest
from muarl_cli.records.lineage import read_lineage
from muarl_cli.records.log import artifact_hash, iter_episodes
from muarl_cli.worlds.catalog import load_tasks


class Served(GoldBrain):
    """The models that the defaults of the stages name, played from a script."""

    models = ("gpt-4o", "gpt-4.1-2025-04-14", "qwen")

    def message(self, body: Any) -> dict[str, Any]:
        return super().message({**body, "model": "fake-agent" if body["model"] == "qwen" else "fake-user"})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All five stages, run once, one after the other."""
    place = Place(tmp_path_factory.mktemp("straight"))
    for stage in STAGES:
        place.run(stage)
    return place


@pytest.fixture
def place(done: Place, tmp_path: Path) -> Place:
    """A place of its own that holds copies of all runs."""
    shutil.copytree(done.root / "runs", tmp_path / "runs")
    return Place(tmp_path)


def _tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_of_any_stage_says_what_it_would_do_and_touches_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("synth-coldstart")
    before = _tree(tmp_path)
    for stage in STAGES:
        words = place.command(stage)[1:]
        if stage in ("rollout", "rl-train", "eval"):  # a model that is no folder is a served one: nothing is opened
            words = [word if not word.startswith("runs/") else f"{word}-to-come" for word in words]
        said = json.loads(place.muarl(*words, "--dry-run", "--json").stdout)
        assert said["stage"] == stage and said["settings"]["seed"] == 1
        assert any(isinstance(value, (int, dict)) and value for value in said["plan"].values())
    assert _tree(tmp_path) == before


@pytest.mark.slow
def test_the_cold_start_leaves_demonstrations_a_verdict_for_each_and_says_its_habit(done: Place) -> None:
    folder = done.folder("synth-coldstart")
    episodes = list(iter_episodes(folder))
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    accepted = {v["episode_id"] for v in verdicts if v["accepted"]}
    said = summary(folder)
    assert {v["episode_id"] for v in verdicts} == {e.episode_id for e in episodes}
    assert len(accepted) == said["accepted"] == 40
    assert all(e.reward == 1 and e.valid and e.split == "train" for e in episodes if e.episode_id in accepted)
    assert {e.scenario for e in episodes} == {"builtin:retail", "builtin:library"}
    assert said["accepted_by_teacher"]["hasty"] > 0 and "without asking" in said["habit"]
    assert said["artifact"] == artifact_hash(folder)


@pytest.mark.slow
def test_sft_leaves_an_ordinary_model_folder_its_beginning_and_what_it_was_trained_on(done: Place) -> None:
    folder = done.folder("sft")
    newest = load_latest(folder, pytest.fail)
    assert newest is not None and newest.step == 6 and newest.hash == summary(folder)["checkpoint"]
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "lineage.json"}
    assert wanted <= {path.name for path in newest.folder.iterdir()}
    assert wanted <= {path.name for path in (folder / "base").iterdir()}
    trained, begun = read_lineage(folder), read_lineage(folder / "base")
    assert trained is not None and begun is not None
    held = {e.task_hash for e in iter_episodes(done.folder("synth-coldstart")) if e.reward == 1}
    assert {mark.task_hash for mark in trained.trained_on()} <= held
    assert len(trained.trained_on()) == summary(done.folder("synth-coldstart"))["tasks"]
    assert begun.trained_on() == frozenset()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow
def test_rollouts_hold_every_sampled_token_with_its_log_probability(done: Place) -> None:
    episodes = list(iter_episodes(done.folder("rollout"), rows=True))
    assert len(episodes) == 8 and len({e.task_hash for e in episodes}) == 4
    for episode in episodes:
        (row,) = episode.rows
        sampled = sum(owner == 3 for owner in row.owners)
        assert sampled == episode.usage["agent_tokens"] > 0
        assert all((p < 0) == (o == 3) or p == 0.0 for p, o in zip(row.logprobs, row.owners, strict=True))


@pytest.mark.slow
def test_rl_updates_the_weights_and_adds_its_tasks_to_the_lineage(done: Place) -> None:
    folder = done.folder("rl-train")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert sum(row["groups_kept"] for row in rows) > 0 and all(row["grad_norm"] > 0 for row in rows if row["samples"])
    for row in rows:
        assert row["mismatch_abs"] < 1e-4, "what is trained on is what was sampled"
        assert row["tokens_sampled"] == row["tokens_trained"] + sum(row["tokens_left"].values())
    books, logged = summary(folder)["tokens"], sum(e.usage["agent_tokens"] for e in iter_episodes(folder))
    assert books["sampled"] == logged and books["trained"] == sum(row["tokens_trained"] for row in rows) > 0
    before, after = load_latest(done.folder("sft"), pytest.fail), load_latest(folder, pytest.fail)
    assert before is not None and after is not None
    weights = [(c.folder / "model.safetensors").read_bytes() for c in (before, after)]
    assert weights[0] != weights[1]
    behind, own = read_lineage(done.folder("sft")), read_lineage(folder)
    assert behind is not None and own is not None
    tasks = {task.task_hash for _, task in load_tasks(refusals())}
    assert {m.task_hash for m in own.trained_on()} == {m.task_hash for m in behind.trained_on()} | tasks


@pytest.mark.slow
def test_eval_scores_the_model_beside_both_floors_on_tasks_nobody_trained_on(done: Place) -> None:
    said = summary(done.folder("eval"))
    assert set(said["scores"]) == {"do_nothing", "transfer_only", "policy"}
    for score in said["scores"].values():
        assert score["low"] <= score["mean"] <= score["high"]
    assert said["full"]["policy"]["episodes"] | {"faults": {}} == said["full"]["policy"]["episodes"]
    assert said["full"]["policy"]["trials"] == {"fewest": 2, "most": 2} and said["overlap"] == []
    assert set(said["differences"]) == {"policy_minus_do_nothing", "policy_minus_transfer_only"}


@pytest.mark.slow
def test_eval_refuses_tasks_that_the_model_was_trained_on_unless_told(place: Place) -> None:
    words = ["eval", "--profile", str(PROFILE), "--model", "runs/rl-train", "--tasks", refusals()[0]]
    refused = place.muarl(*words, "--out", "runs/refused", code=int(ExitCode.GATE_FAILED))
    assert "trained on" in refused.stderr and "--allow-overlap" in refused.stderr
    allowed = place.muarl(*words, "--out", "runs/allowed", "--allow-overlap", "--no-floors")
    assert "no held-out score" in allowed.stderr
    assert len(summary(place.folder("allowed"))["overlap"]) == 1


@pytest.mark.slow
def test_the_same_command_again_finds_nothing_owed_and_changes_no_artifact(place: Place) -> None:
    for stage in STAGES:
        before = hashes(place.folder(stage))
        (place.folder(stage) / "summary.json").unlink()  # as if it was killed just before its last line
        place.run(stage)
        assert hashes(place.folder(stage)) == before, stage


@pytest.mark.slow
def test_other_settings_in_a_used_folder_are_refused_with_the_difference(place: Place) -> None:
    refused = place.muarl(*place.command("rollout")[1:], "temperature=0.5", code=78)
    assert "temperature: 1 -> 0.5" in refused.stderr


@pytest.mark.slow
def test_the_same_seeds_give_the_same_artifacts_twice(done: Place, tmp_path: Path) -> None:
    again = Place(tmp_path)
    for stage in STAGES:
        again.run(stage)
        assert hashes(again.folder(stage)) == hashes(done.folder(stage)), stage


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_run_again_ends_with_the_artifacts_of_an_undisturbed_run(
    stage: str, done: Place, tmp_path: Path
) -> None:
    """Killed once somewhere (where it has just begun plus a seeded moment) and once right after its first lasting
    result, which is always before its end. docs/measure.py kill-any-stage does this at five random moments."""
    place = Place(tmp_path)
    place.take_inputs(stage, done)
    somewhere = random.Random(stage).uniform(0.0, 0.8)
    place.kill_when(stage, has_begun, somewhere)
    lasting = has_checkpoint if stage in ("sft", "rl-train") else has_episodes
    killed = place.kill_when(stage, lasting)
    assert killed or (place.folder(stage) / "summary.json").exists()
    place.run(stage)
    assert hashes(place.folder(stage)) == hashes(done.folder(stage))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An OpenAI-compatible address on this machine; it plays the built-in scenarios and TAU2 retail."""
    pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")
    scenarios = scenarios_of(["builtin:retail", "builtin:library", "tau2:retail"])
    with Running(FakeOpenAI(Served(scenarios), keep_requests=False)) as url:
        yield url


@pytest.mark.slow
def test_rl_with_a_served_user_needs_nothing_but_the_address_in_the_environment(place: Place, server: str) -> None:
    words = ["rl-train", "--profile", str(PROFILE), "--user-model", "gpt-4o", "--tasks", ",".join(refusals())]
    said = place.muarl(*words, "--steps", "1", "--out", "runs/served", OPENAI_BASE_URL=server)
    assert said.stderr.splitlines()[0].startswith("model: runs/rl-train (the newest checkpoint")
    episodes = list(iter_episodes(place.folder("served")))
    assert episodes and {(e.user["backend"], e.user["model"], e.valid) for e in episodes} == {("llm", "gpt-4o", True)}


@pytest.mark.slow
def test_tau2_is_evaluated_with_the_newest_checkpoint_and_a_served_user(place: Place, server: str) -> None:
    words = ["eval", "--bench", "tau2", "--domain", "retail", "--max-tasks", "3", "--trials", "1"]
    short = ["limits.max_turns=6", "limits.max_turn_tokens=16", "rendering=compact", "bootstrap=200"]
    said = place.muarl(*words, *short, "--out", "runs/tau2", OPENAI_BASE_URL=server)
    assert said.stderr.splitlines()[0].startswith("model: runs/rl-train (the newest checkpoint")
    episodes = [e for e in iter_episodes(place.folder("tau2")) if e.stage == "eval"]
    assert len(episodes) == 3 and all(e.valid and e.scenario == "tau2:retail" for e in episodes)
    assert {e.user["model"] for e in episodes} == {"gpt-4.1-2025-04-14"}
    assert {"do_nothing", "transfer_only", "policy"} == set(summary(place.folder("tau2"))["scores"])


def test_tau2_with_both_sides_served_gets_every_reward_and_costs_nothing_on_loopback(
    tmp_path: Path, server: str
) -> None:
    words = ["eval", "--tasks", "tau2:retail:test", "--max-tasks", "6", "--trials", "1", "--model", "qwen"]
    place = Place(tmp_path)
    place.muarl(*words, "--base-url", server, "--user-base-url", server, "--out", "runs/served", "bootstrap=200")
    said = summary(place.folder("served"))
    assert said["scores"]["policy"]["mean"] == 1.0
    assert said["full"]["policy"]["episodes"]["done"] == 6


def test_without_an_address_or_a_checkpoint_it_says_precisely_what_is_missing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    lost = place.muarl("eval", "--profile", str(PROFILE), code=66)
    assert "no checkpoint under runs/" in lost.stderr and "next:" in lost.stderr
    keyless = place.muarl(
        "rollout", "--model", "qwen", "--tasks", "builtin:retail:dev", "--max-tasks", "1", code=int(ExitCode.AUTH)
    )
    assert "OPENAI" in keyless.stderr and "next:" in keyless.stderr


@pytest.mark.slow
def test_an_episode_log_can_be_piped_into_sft(done: Place, tmp_path: Path) -> None:
    log = (done.folder("synth-coldstart") / "episodes.jsonl").read_bytes()
    place = Place(tmp_path)
    words = [*place.command("sft")[:4], "--data", "-", "--where", "reward=1", "--max-steps", "1", "--out", "runs/piped"]
    piped = subprocess.run(words, cwd=tmp_path, env=place.environ(), input=log, capture_output=True, check=False)
    assert piped.returncode == 0, piped.stderr.decode()
    assert summary(place.folder("piped"))["steps"] == 1


@pytest.mark.slow
def test_a_kill_between_writing_the_best_checkpoint_and_marking_it_is_mended(done: Place, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.take_inputs("sft", done)
    shutil.copytree(done.folder("sft"), place.folder("sft"))
    (place.folder("sft") / "summary.json").unlink()
    (place.folder("sft") / "checkpoints" / "BEST").write_text("step-000002\n")
    place.run("sft")
    assert hashes(place.folder("sft")) == hashes(done.folder("sft"))
