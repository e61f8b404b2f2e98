"""Which command starts the ranks, and what does not go together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muarl_cli.cli import launch, launcher
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.launched import follows

WORDS = ["rl-train", "--launcher", "torchrun", "--processes", "2", "shards.zero=3"]


def test_torchrun_starts_this_very_command_once_a_rank() -> None:
    command = launcher.command_of("torchrun", None, 2, WORDS)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[-len(WORDS) - 2 :] == ["-m", "muarl_cli", *WORDS]
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert "auto" in launcher.command_of("torchrun", None, None, WORDS)


def test_deepspeeds_launcher_gets_the_hostfile_and_the_ranks_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "find_spec", lambda name: object())
    hosts = tmp_path / "hosts"
    hosts.write_text("one slots=8\ntwo slots=8\n")
    command = launcher.command_of("deepspeed", hosts, 8, WORDS)
    assert command[command.index("--hostfile") + 1] == str(hosts)
    assert command[command.index("--num_gpus") + 1] == "8"
    assert command[-len(WORDS) - 2 :] == ["--module", "muarl_cli", *WORDS]


@pytest.mark.parametrize(
    ("name", "hosts", "words"),
    [("slurm", None, "unknown launcher"), ("torchrun", "hosts", "no hostfile"), ("deepspeed", "none", "no hostfile")],
)
def test_what_does_not_go_together_is_an_error_with_a_next_step(
    name: str, hosts: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "find_spec", lambda name: object())
    (tmp_path / "hosts").write_text("one slots=8\n")
    with pytest.raises(MuarlError, match=words) as error:
        launcher.command_of(name, tmp_path / hosts if hosts else None, None, WORDS)
    assert error.value.next_step


def test_a_launcher_that_is_not_installed_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "find_spec", lambda name: None)
    with pytest.raises(MuarlError, match="deepspeed is not installed") as error:
        launcher.command_of("deepspeed", None, None, WORDS)
    assert error.value.code == ExitCode.MISSING_INPUT and "muarl-cli[deepspeed]" in error.value.next_step


def test_a_rank_starts_no_ranks_and_without_a_launcher_its_flags_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[object, ...]] = []
    monkeypatch.setattr(launcher, "start", lambda *arguments: started.append(arguments))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    launch.launch_ranks("torchrun", None, 2)
    assert started == [("torchrun", None, 2)]
    with pytest.raises(MuarlError, match="are for a launcher"):
        launch.launch_ranks(None, None, 2)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert follows()
    launch.launch_ranks("torchrun", None, 2)
    assert len(started) == 1
