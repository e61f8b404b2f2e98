"""A real vLLM server, started as a person starts one: `muarl serve`, with an interpreter that has vLLM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

PYTHON = os.environ.get("MUARL_VLLM_PYTHON", "")
needs_vllm = pytest.mark.skipif(not PYTHON, reason="needs vLLM in an environment of its own: make test-vllm")
START_SECONDS = 300
"""on two cores that others use too, one takes up to a minute"""


@dataclass(frozen=True)
class Served:
    """A server that answers: its base URL and its process, the first of a group."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def served(folder: Path, *words: str, python: str = PYTHON, flags: Sequence[str] = ()) -> Iterator[Served]:
    """`muarl serve FOLDER WORDS -- FLAGS` on a free port, in fp32. Raises `AssertionError` with the server's last lines
    where it does not come up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [str(Path(sys.executable).with_name("muarl")), "serve", str(folder), "--port", str(port), *words]
    program += ["--python", python, "--", "--dtype", "float32", "--enforce-eager", *flags]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            program, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            trouble = _wait(process, f"http://127.0.0.1:{port}/health")
            if trouble:
                raise AssertionError(f"the server {trouble}; its last lines:\n{_tail(log)}")
            _let_others_in(process.pid)
            yield Served(f"http://127.0.0.1:{port}/v1", process)
        finally:
            if process.poll() not in (None, -signal.SIGKILL):
                print(f"the server ended by itself; its last lines:\n{_tail(log)}", file=sys.stderr)
            with suppress(ProcessLookupError):  # a test may have killed it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _let_others_in(session: int) -> None:
    """Lower the priority of vLLM's worker. On two cores one that draws was seen to keep its own server, and everybody
    else, from a core until all turns were over: no update could come into the middle of a turn."""
    listed = subprocess.run(["ps", "-eLo", "sid=,tid=,comm="], capture_output=True, text=True, check=True).stdout
    for sid, thread, name in (line.split(maxsplit=2) for line in listed.splitlines()):
        if int(sid) == session and name.startswith("VLLM::Worker"):
            os.setpriority(os.PRIO_PROCESS, int(thread), 19)


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-80:])


def _wait(process: subprocess.Popen[bytes], health: str) -> str:
    """Until the server is healthy: "", or what happened instead."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            return f"ended with exit code {process.returncode}"
        try:
            urllib.request.urlopen(health, timeout=2).close()
            return ""
        except OSError:
            time.sleep(0.5)
    return f"did not answer within {START_SECONDS} s"
