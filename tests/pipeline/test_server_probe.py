"""`muarl plan --like` with servers named: real HTTP, a tiny model, a log of a few conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.vllm_like_server import VllmLikeServer

from muarl_cli.cli.app import main
from muarl_cli.engines.canary import canary_of, write_canary
from muarl_cli.errors import ExitCode
from muarl_cli.pipeline.server_probe import _made
from muarl_cli.training.tiny_model import TinySpec, load_model, make_tiny

SPEC = TinySpec(layers=2, width=32, heads=2, kv_heads=1, head_size=16, vocab=400, max_length=2048)
TEXTS = ["user assistant system tool results", "Hello, how can I help you with your order?"] * 4
SHORT = ["limits.max_turns=2", "limits.max_turn_tokens=4", "user.backend=scripted"]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder, and a run in which it played."""
    root = tmp_path_factory.mktemp("plan")
    model = make_tiny(TEXTS, root / "model", SPEC, 1, "compact")
    write_canary(model, canary_of(load_model(model, "fp32"), "fp32"))
    tasks = ["--tasks", "builtin:library:dev", "--max-tasks", "2", "group=2"]
    assert main(["rollout", "--model", str(model), *tasks, *SHORT, "--out", str(root / "run")]) == ExitCode.OK
    return model, root / "run"


def plan(known: tuple[Path, Path], *words: str) -> list[str]:
    model, run = known
    size = ["prompts_per_step=2", "group=2", "in_flight=4", "refill_rounds=0"]
    return ["plan", "--model", str(model), "--like", str(run), "--json", *size, *SHORT, *words]


@pytest.mark.parametrize("staleness", [0, 1])
def test_servers_are_measured_and_keep_the_weights_they_have(
    known: tuple[Path, Path], capfd: pytest.CaptureFixture[str], staleness: int
) -> None:
    with VllmLikeServer(load_model(known[0], "fp32")) as one, VllmLikeServer(load_model(known[0], "fp32")) as other:
        own = [f'engines=["{one.url}","{other.url}"]', f"staleness={staleness}", "importance_cap=2"]
        assert main(plan(known, *own)) == ExitCode.OK
        assert not one.loading and not other.loading and one.resets
        assert min(one.completions, other.completions) > 2, "each has drawn, beside its canary"
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert found["engines"] == 2 and found["staleness"] == staleness and one.url in found["hardware"]
    assert found["rollout_seconds"] + found["update_seconds"] == pytest.approx(found["step_seconds"], abs=0.02)
    assert 0 <= found["trainer_idle_share"] <= 1 and 0 <= found["rollout_idle_share"] <= 1


def test_a_server_that_does_not_answer_or_serves_something_else_is_named_with_what_to_do(
    known: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with VllmLikeServer(load_model(known[0], "fp32")) as gone:
        pass
    assert main(plan(known, f"engines={gone.url}")) == ExitCode.UNAVAILABLE
    assert "does not answer" in (said := capfd.readouterr().err) and "start the server" in said
    torch.manual_seed(3)
    model = load_model(known[0], "fp32")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 3 * weight.std() * torch.randn_like(weight)
    with VllmLikeServer(model) as wrong:
        assert main(plan(known, f"engines={wrong.url}")) == ExitCode.UNAVAILABLE
        assert wrong.completions == 1, "it was asked for the canary and nothing else"
    assert "does not compute with the weights" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["staleness=1", "importance_cap=2"], ExitCode.CONFIG, "staleness 1 needs engines that are servers"),
        (["engines=vllm"], ExitCode.CONFIG, "vLLM in this process is not measured"),
        (["--gpus", "4", "--engine-gpus", "2"], ExitCode.USAGE, "--gpus, --engine-gpus changes nothing with --like"),
    ],
)
def test_what_a_measurement_cannot_obey_is_refused(
    known: tuple[Path, Path], capfd: pytest.CaptureFixture[str], words: list[str], code: ExitCode, why: str
) -> None:
    assert main(plan(known, *words)) == code
    assert why in capfd.readouterr().err


def test_what_a_server_does_is_counted_for_one_of_several() -> None:
    rows = [(0, 10, 4), (20, 5, 8), (0, 30, 2), (40, 15, 6)]
    assert _made(1, rows) == (8, 20, 60, 60, 4)
    assert _made(2, rows) == (8, 10, 30, 30, 2)
