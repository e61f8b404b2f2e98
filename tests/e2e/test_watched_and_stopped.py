"""A rollout with served users, as a real process: what a terminal shows of it, and how it lets go when told to."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.openai_server import FakeOpenAI, Running
from fakes.stages import TIMEOUT
from fakes.watched import CONTROL, in_terminal, rollout_command, stopped
from fakes.wording import Rewords

from muarl_cli.records.log import LOG_NAME, artifact_hash, iter_episodes


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Running(FakeOpenAI(Rewords(), latency=0.2)) as address:
        yield address


@pytest.mark.slow
def test_a_terminal_shows_one_live_panel_and_a_pipe_gets_no_control_characters(url: str, tmp_path: Path) -> None:
    code, seen = in_terminal(rollout_command(url, tmp_path / "shown", 24))
    assert code == 0
    text = CONTROL.sub("", seen)
    panels = [line.strip() for line in re.split(r"[\r\n]+", text) if "turns" in line]
    assert panels and all(re.search(r"turns \d+  tokens/s \d+  in flight \d+", line) for line in panels)
    assert max(int(re.search(r"in flight (\d+)", line).group(1)) for line in panels) >= 4  # type: ignore[union-attr]
    assert re.search(r"episodes .*\d+/24", text)
    assert "\x1b[?25h" in seen.rpartition("\x1b[?25l")[2], "the cursor is shown again"
    piped = subprocess.run(
        rollout_command(url, tmp_path / "piped", 24), capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "\x1b" not in piped.stderr and "\r" not in piped.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "background", "code"),
    [(signal.SIGINT, False, 130), (signal.SIGTERM, False, 143), (signal.SIGTERM, True, 143)],
)
def test_a_run_that_is_told_to_stop_lets_go_and_goes_on_later(
    tmp_path: Path, number: signal.Signals, background: bool, code: int
) -> None:
    """Once an episode is on disk no user answers any more, so that the signal comes in the middle, however late."""
    log, users = tmp_path / "stopped" / LOG_NAME, FakeOpenAI(Rewords(), latency=0.02)
    users.silent = lambda: log.exists() and log.stat().st_size > 0
    with Running(users) as url:
        command = rollout_command(url, tmp_path / "stopped", 32)
        ended, said, _ = stopped(command, tmp_path / "stopped", number, background)
        assert ended == code and "same command again" in said and "Traceback" not in said
        kept = {episode.episode_id for episode in iter_episodes(tmp_path / "stopped")}
        assert 0 < len(kept) < 32, "finished episodes, and not all"
        users.silent = bool
        again = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        straight = rollout_command(url, tmp_path / "straight", 32)
        subprocess.run(straight, capture_output=True, timeout=TIMEOUT, check=True)
    assert "set aside" not in again.stderr
    assert kept < {episode.episode_id for episode in iter_episodes(tmp_path / "stopped")}
    assert len(list(iter_episodes(tmp_path / "stopped"))) == 32
    assert artifact_hash(tmp_path / "stopped") == artifact_hash(tmp_path / "straight")
