"""`muarl rl-train` and `muarl rollout` with the policy's turns drawn by a server, as real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.stages import Place, refusals
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.log import iter_episodes
from muarl_cli.training.tiny_model import load_model

pytestmark = pytest.mark.slow


def test_rl_draws_from_a_server_that_gets_every_new_weight(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for stage in ("synth-coldstart", "sft"):
        place.run(stage)
    start = resolve_model_path(place.folder("sft"), lambda line: None)
    with VllmLikeServer(load_model(start, "fp32")) as server:
        words = [*place.command("rl-train")[1:], "--engine", server.url]
        place.muarl(*words, "--tasks", ",".join(refusals()))
        rolled = [*place.command("rollout")[1:-1], "runs/served", "--engine", server.url, "--model"]
        said = place.muarl(*rolled, "runs/rl-train").stderr
        # What the training run left in the server is not what the server was started with.
        stale = place.muarl(*rolled, "runs/sft", "--out", "runs/stale", "--max-tasks", "1").stderr
    assert "answers as runs/rl-train/checkpoints/step-000003 does" in said and "warning: " not in said
    assert "warning: " in stale and "or serves other weights" in stale
    metrics = [json.loads(line) for line in (place.folder("rl-train") / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 3
    updated = [row for row in metrics if row["agent_tokens"]]
    assert updated, "no step had a group to learn from"
    # The server's log-probabilities are the trainer's: after each sync, to the last few bits.
    assert all(row["mismatch_max"] < 1e-3 for row in updated)
    assert server.calls.count("/collective_rpc") == 1 + 3
    episodes = list(iter_episodes(place.folder("rl-train")))
    assert {e.agent["weight_version"] for e in episodes} == {"0", "1", "2"}
    assert all(e.valid for e in episodes) and not (place.folder("rl-train") / ".weights" / "weights-3").exists()
    assert len(list(iter_episodes(tmp_path / "runs" / "served"))) == 8
