"""A server is taken at its word only where nothing can be compared: `rollout` and `eval` on a real local one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.cli.app import main
from muarl_cli.engines.canary import LOOSEST, NAME, canary_of, read_canary, write_canary
from muarl_cli.errors import ExitCode
from muarl_cli.records.log import iter_episodes
from muarl_cli.training.tiny_model import TinySpec, load_model, make_tiny

SPEC = TinySpec(layers=2, width=32, heads=2, kv_heads=1, head_size=16, vocab=400, max_length=2048)
TEXTS = ["user assistant system tool results", "Hello, how can I help you with your order?"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a stage leaves it."""
    made = make_tiny(TEXTS, tmp_path_factory.mktemp("model") / "m", SPEC, 1, "compact")
    write_canary(made, canary_of(load_model(made, "fp32"), "fp32"))
    return made


@pytest.fixture
def serve() -> Iterator[Callable[[Any], VllmLikeServer]]:
    servers: list[VllmLikeServer] = []

    def started(model: Any) -> VllmLikeServer:
        servers.append(VllmLikeServer(model).__enter__())
        return servers[-1]

    yield started
    for server in servers:
        server.kill()


def noisy(folder: Path, share: float) -> Any:
    """The folder's model with noise on every weight, `share` of the weight's own spread."""
    model = load_model(folder, "fp32")
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += share * weight.std() * torch.randn_like(weight)
    return model


def play(stage: str, model: Path, out: Path, *servers: VllmLikeServer) -> int:
    engines = [word for server in servers for word in ("--engine", server.url)]
    tasks = ["--tasks", "builtin:library:dev", "--max-tasks", "1", "group=1"]
    if stage == "eval":
        tasks = ["tasks=builtin:library:test", "max_tasks=1", "trials=1", "bootstrap=100"]
    short = ["limits.max_turns=2", "limits.max_turn_tokens=4"]
    return main([stage, "--model", str(model), *engines, *tasks, *short, "--out", str(out)])


def test_the_model_that_is_named_is_played_and_the_line_says_how_near_it_is(
    folder: Path, tmp_path: Path, serve: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    both = serve(load_model(folder, "fp32")), serve(load_model(folder, "fp32"))
    assert play("rollout", folder, tmp_path / "out", *both) == ExitCode.OK
    said = capfd.readouterr().err
    for server in both:
        assert f"{server.url.removesuffix('/v1')} answers as {folder} does: " in said and "off by 0.0000" in said
    assert "warning" not in said and len(list(iter_episodes(tmp_path / "out"))) == 1


@pytest.mark.parametrize("stage", ["rollout", "eval"])
def test_other_weights_are_refused_before_a_conversation_and_the_same_command_goes_on_with_the_right_ones(
    folder: Path, tmp_path: Path, serve: Any, capfd: pytest.CaptureFixture[str], stage: str
) -> None:
    right, wrong = serve(load_model(folder, "fp32")), serve(noisy(folder, 1.0))
    assert play(stage, folder, tmp_path / "out", right, wrong) == ExitCode.UNAVAILABLE
    said = capfd.readouterr().err
    assert f"does not compute with the weights of {folder}" in said and f"muarl serve {folder}" in said
    assert f"where: {wrong.url.removesuffix('/v1')}\n" in said
    assert (right.completions, wrong.completions) == (1, 1), "each was asked for the canary and nothing else"
    assert not (tmp_path / "out" / "episodes.jsonl").exists()
    assert play(stage, folder, tmp_path / "out", right) == ExitCode.OK
    assert len([e for e in iter_episodes(tmp_path / "out") if e.stage == stage]) == 1


def test_what_another_precision_could_be_is_played_with_a_warning_that_says_by_how_much(
    folder: Path, tmp_path: Path, serve: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    near, canary = noisy(folder, 0.02), read_canary(folder)
    assert canary is not None
    away = canary.distance(canary_of(near, "fp32").logprobs)
    assert canary.tolerance < away < LOOSEST
    assert play("rollout", folder, tmp_path / "out", serve(near)) == ExitCode.OK
    (warned,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert f"{away:.4f}" in warned and "fp32" in warned and "other weights" in warned


def test_a_model_with_fewer_tokens_than_the_one_that_is_named_is_an_explained_error(
    folder: Path, tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from muarl_cli.engines import wire

    monkeypatch.setattr(wire.RetryPolicy, "pause", lambda self, attempt, draw: 0.0)
    small = load_model(folder, "fp32")
    small.resize_token_embeddings(100)
    server = serve(small)
    assert play("rollout", folder, tmp_path / "out", server) == ExitCode.UNAVAILABLE
    said = capfd.readouterr().err
    assert f"where: {server.url}" in said and "fewer tokens" in said and "Traceback" not in said


def test_a_folder_without_a_canary_is_played_and_the_line_says_that_nothing_was_compared(
    folder: Path, tmp_path: Path, serve: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(folder, foreign, ignore=shutil.ignore_patterns(NAME))
    assert play("rollout", foreign, tmp_path / "out", serve(noisy(folder, 1.0))) == ExitCode.OK
    said = capfd.readouterr().err
    assert f"not checked that the engine serves {foreign}" in said and "muarl export model" in said


def test_in_this_process_there_is_nothing_to_ask(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert play("rollout", folder, tmp_path / "out") == ExitCode.OK
    said = capfd.readouterr().err
    assert "answers as" not in said and "not checked" not in said


def test_every_model_that_sft_leaves_has_the_canary_of_what_can_be_loaded_from_it(
    tmp_path: Path, serve: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    shown, out = tmp_path / "coldstart", tmp_path / "sft"
    assert main(["synth-coldstart", "--profile", "tiny", "scenarios=library", "count=8", "--out", str(shown)]) == 0
    smallest = ["tiny.layers=1", "tiny.width=32", "tiny.heads=2", "tiny.kv_heads=1", "tiny.head_size=16"]
    smallest += ["tiny.vocab=400", "tiny.warmup_steps=0", "max_steps=2", "epochs=0", "batch=2", "eval_share=0"]
    words = ["save_every=1", "keep=2", "max_length=4096"]
    assert main(["sft", "--data", str(shown), *smallest, *words, "--out", str(out)]) == 0
    left = [out / "base", *sorted((out / "checkpoints").glob("step-*"))]
    files = {(place / NAME).read_bytes() for place in left}
    assert len(left) == 3 == len(files), "of weights that differ"
    for place in left:
        kept = read_canary(place)
        assert kept is not None and kept.dtype == "fp32"
        assert kept.distance(canary_of(load_model(place, "fp32"), "fp32").logprobs) < 1e-4
    server = serve(load_model(left[-1], "fp32"))
    assert play("rollout", out, tmp_path / "played", server) == ExitCode.OK
    assert f"answers as {left[-1]} does: " in capfd.readouterr().err
