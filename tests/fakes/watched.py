"""A rollout with served users as a real process: shown in a terminal of its own, or told to stop in the middle."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from fakes.stages import TIMEOUT, muarl

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""what moves a cursor or changes colours"""


def rollout_command(url: str, out: Path, tasks: int) -> list[str]:
    """A rollout of the careful agent with users served at `url`, eight at a time."""
    served = ["user.backend=llm", "user.model=m", f"user.base_url={url}", "in_flight=8", f"max_tasks={tasks}"]
    tasks_of = ["--tasks", "builtin:retail:dev", "--group", "1"]
    return [str(muarl()), "rollout", "--agent", "careful", *tasks_of, "--out", str(out), *served]


def in_terminal(command: list[str]) -> tuple[int, str]:
    """Exit code, and what an 80-column terminal was sent."""
    main, side = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command, stdin=side, stdout=subprocess.DEVNULL, stderr=side, env=environment)
    os.close(side)
    seen = b""
    while True:
        ready, _, _ = select.select([main], [], [], TIMEOUT)
        assert ready, "nothing was shown"
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other side has closed the terminal
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    return process.wait(TIMEOUT), seen.decode()


def stopped(
    command: list[str], folder: Path, number: signal.Signals, background: bool = False
) -> tuple[int, str, float]:
    """Run, send a signal once an episode is on disk: exit code, what was said on stderr, seconds it took to let go. In
    the background of a script a process is told to ignore Ctrl-C, which it is sent first."""
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_IGN if background else signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=heeds)
    log = folder / "episodes.jsonl"
    until = time.monotonic() + TIMEOUT
    while not (log.exists() and log.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    if background:
        process.send_signal(signal.SIGINT)
    process.send_signal(number)
    told = time.monotonic()
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - told
