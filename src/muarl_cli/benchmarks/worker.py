"""A process in another interpreter that answers JSON lines: how a benchmark's own code is used without importing it.

One request a line, one answer a line, in order. Invariants: a request ends within its time or the process is killed; a
process that died is started again with the next request, under a new `generation`, so that who kept state in it knows
that it is gone. What is the worker's fault is a `ToolFault`, never a result.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from muarl_cli.conversation.protocols import ToolFault

SECONDS = 30.0
"""for one request; loading a benchmark's data takes a few"""
_CHUNK = 1 << 16


class Worker:
    """`command` speaks the protocol on its standard input and output; `environment` is added to ours."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.command, self.environment = tuple(command), dict(environment or {})
        self.generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, operation: str, seconds: float = SECONDS, **values: Any) -> Any:
        """The answer to one request; raises `ToolFault` where the process dies, hangs, or answers with an error."""
        with self._lock:
            process = self._running()
            line = json.dumps({"op": operation, **values}, ensure_ascii=True).encode() + b"\n"
            try:
                answer = json.loads(self._exchange(process, line, seconds))
            except (OSError, ValueError) as error:
                said = self._last_words()
                self._kill()
                raise ToolFault(f"{operation}: the benchmark's process failed: {error}{said}") from error
        if "error" in answer:
            raise ToolFault(f"{operation}: {answer['error']}")
        return answer["answer"]

    def start(self) -> int:
        """Start the process unless it runs; its generation."""
        with self._lock:
            self._running()
            return self.generation

    def close(self) -> None:
        """End the process; the next request would start another."""
        with self._lock:
            self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **self.environment},
                cwd=str(Path(self.command[0]).parent),  # never our own folder: a script's imports must not find it
            )
            self.generation += 1
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
        assert process.stdin and process.stdout
        process.stdin.write(line)
        process.stdin.flush()
        until = time.monotonic() + seconds
        out = process.stdout.fileno()
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise OSError(f"no answer within {seconds:g} seconds")
            part = os.read(out, _CHUNK)
            if not part:
                raise OSError("it ended")
            parts.append(part)
        return b"".join(parts)

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
