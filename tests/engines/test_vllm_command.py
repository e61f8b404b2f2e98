"""The command line of a vLLM server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muarl_cli.cli.app import main
from muarl_cli.engines.vllm_command import SERVED_NAME, serve_command
from muarl_cli.errors import MuarlError


def test_the_command_asks_for_the_distribution_that_is_sampled_from_and_for_the_weights_route() -> None:
    command = serve_command("some/model", "127.0.0.1", 8123, 4096, 16, ["--dtype", "float32"], "python-x")
    line = command.shell()
    for part in (
        "VLLM_SERVER_DEV_MODE=1",
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--worker-extension-cls muarl_cli.engines.vllm_worker.Worker",
        f"--served-model-name {SERVED_NAME}",
        "--max-model-len 4096",
        "--max-lora-rank 16",
    ):
        assert part in line
    assert line.endswith("--dtype float32") and command.words[0] == "python-x"
    assert "--max-lora-rank 8 " in serve_command("m", "127.0.0.1", 1, 10, 4, ["--x"]).shell(), "vLLM knows no 4"
    with pytest.raises(MuarlError, match="no adapter of rank 1000"):
        serve_command("m", "127.0.0.1", 1, 10, 1000, [])
    without = serve_command("m", "127.0.0.1", 1, 10, 0, []).shell()
    assert "--enable-lora" not in without and "LORA" not in without, (
        "it would offer a route for adapters that it cannot take"
    )
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in line


@pytest.mark.parametrize(
    ("platform", "given", "added"),
    [
        ("cpu", [], ["--no-enable-chunked-prefill"]),
        ("cpu", ["--enable-chunked-prefill"], []),
        ("other", [], []),
    ],
)
def test_on_a_cpu_prompts_are_not_read_in_parts_unless_one_asks_for_it(
    platform: str, given: list[str], added: list[str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho a warning\necho {platform}\n")
    python.chmod(0o755)
    command = serve_command("m", "127.0.0.1", 1, 10, 0, given, str(python))
    assert list(command.fitted().words) == [*command.words, *added]


def test_without_vllm_it_is_said_what_to_install(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(MuarlError, match="vLLM cannot be imported"):
        serve_command("m", "127.0.0.1", 1, 10, 0, [], sys.executable).fitted()
    assert main(["serve", "some/model", "--print", "--", "--dtype", "float32"]) == 0
    assert "--model some/model" in capsys.readouterr().out
