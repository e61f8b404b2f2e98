"""`muarl rl-train` with staleness above 0: a real process, a server of its own policy, weights replaced in flight.

The server holds turns back, so that what a machine may or may not do in time is always done: no conversation goes on
after its first turn before it has the newest weights that it may see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.stages import Place, refusals
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.rl_batches import TaskStream
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.log import LOG_NAME, iter_episodes
from muarl_cli.training.tiny_model import load_model
from muarl_cli.worlds.catalog import load_tasks

pytestmark = pytest.mark.slow
STEPS, BOUND, TASKS, GROUP, SEED = 5, 1, 2, 2, 1
A_STEP = TASKS * GROUP
PLANNED = STEPS * A_STEP
"""episodes without replacements"""


class Asynchronous(Place):
    """A place whose RL draws from a server and goes on while it trains."""

    url = ""

    def command(self, stage: str) -> list[str]:
        words = super().command(stage)
        if stage != "rl-train":
            return words
        more = [f"staleness={BOUND}", "importance_cap=2", "refill_rounds=0", f"in_flight={2 * A_STEP}"]
        more += [f"steps={STEPS}", f"prompts_per_step={TASKS}", f"group={GROUP}", f"seed={SEED}"]
        return [*words, "--engine", self.url, "--tasks", ",".join(refusals()), *more]


def planned() -> dict[int, list[int]]:
    """The seeds of each step's episodes."""
    stream = TaskStream(load_tasks(list(refusals())), SEED)
    return {
        step: [job("", "", step, *of, slot, SEED).key.seed for of in stream.next(TASKS) for slot in range(GROUP)]
        for step in range(1, STEPS + 1)
    }


def order() -> dict[int, frozenset[int | str]]:
    """A conversation's second turn waits for the weights of the update before its own step's."""
    return {
        derive_seed(seed, "agent", 1) % 2**31: frozenset({str(step - 1)})
        for step, seeds in planned().items()
        for seed in seeds
    }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Asynchronous]:
    found = Asynchronous(tmp_path)
    for stage in ("synth-coldstart", "sft"):
        found.run(stage)
    with VllmLikeServer(load_model(resolve_model_path(found.folder("sft"), lambda line: None), "fp32")) as server:
        found.url, server.after = server.url, order()
        yield found
    assert server.loading and not any(server.loading), "weights were replaced under a turn"
    assert server.beside and not any(server.beside), "it was asked what it computes beside turns, and takes adapters"


def test_weights_change_under_conversations_within_the_bound_and_a_kill_loses_and_repeats_nothing(
    place: Asynchronous,
) -> None:
    log = place.folder("rl-train") / LOG_NAME

    def ready(folder: Path, pid: int) -> bool:
        return (folder / "checkpoints" / "LATEST").exists() and log.read_bytes().count(b"\n") >= PLANNED // 3

    assert place.kill_when("rl-train", ready)
    before = log.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    place.run("rl-train")
    # Nothing acknowledged is lost, held again, or trained in two steps.
    assert log.read_bytes().startswith(whole)
    episodes = list(iter_episodes(place.folder("rl-train")))
    assert len(episodes) == PLANNED == log.read_bytes().count(b"\n") and all(e.valid for e in episodes)
    by_step = {step: sorted(e.seed for e in episodes if e.step == step) for step in range(1, STEPS + 1)}
    assert by_step == {step: sorted(seeds) for step, seeds in planned().items()}
    assert len({e.episode_id for e in episodes}) == PLANNED
    # The bound, by the metrics and by the log.
    lines = (place.folder("rl-train") / "metrics.jsonl").read_text().splitlines()
    metrics: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    updated = [row for row in metrics if row["agent_tokens"]]
    assert updated, "no step had a group to learn from"
    assert all(row["staleness_max"] <= BOUND for row in metrics)
    assert sum(row["staleness_shares"].get("1", 0.0) for row in updated) > 0
    assert any("weight_versions" in e.agent for e in episodes), "no episode went on under new weights"
    for episode in episodes:
        versions = [int(v) for v in episode.agent.get("weight_versions", [episode.agent["weight_version"]])]
        assert versions == sorted(versions) and episode.step - 1 - BOUND <= versions[0] <= versions[-1] < episode.step
    # Tokens of the last update's own weights differ by rounding, older ones by what an update has moved.
    assert all(row["mismatch_max"] < 1e-3 for row in updated if row["staleness_max"] == 0)
    assert all(0 <= row["trainer_idle_share"] <= 1 and 0 <= row["rollout_idle_share"] <= 1 for row in metrics)
