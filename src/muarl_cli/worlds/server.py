"""The client of a world server: a process in its own interpreter that serves other people's worlds over stdio.

One JSON object a line each way (see `benchmarks/workers/serving.py`), many episodes in one process, requests pipelined
and answered in order. Invariants: a server that dies or hangs fails the requests it still owed as infrastructure
faults, never as an agent's failure; the next episode gets a new process; no process outlives this one.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import Any

from muarl_cli.conversation.protocols import InfraFault, ToolFault
from muarl_cli.errors import ExitCode, MuarlError

SECONDS = 60.0
"""for one answer in the middle of an episode"""
LOAD_SECONDS = 600.0
"""for an answer before the first episode: a benchmark may replay every task's gold calls to describe its tasks"""
TAIL = 20
"""lines of a dead server's complaints that are kept"""


class WorldServer:
    """One server, started at the first request and again after it died. Safe to use from several threads."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None, seconds: float = SECONDS
    ) -> None:
        self.name, self._command, self._environ, self._seconds = name, list(command), dict(environ or {}), seconds
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self.starts = 0
        """how many processes there have been: an episode belongs to one of them"""
        atexit.register(self.close)

    def load(self, verb: str, **args: Any) -> Any:
        """The answer to a request that may take minutes; otherwise as `ask`."""
        return self._answer(verb, LOAD_SECONDS, *self._send(verb, args))

    def ask(self, verb: str, **args: Any) -> Any:
        """The answer to a request. Raises `InfraFault` where the server died or is late, `ToolFault` where it says that
        the served code failed, `MuarlError` where it cannot be started."""
        return self._answer(verb, self._seconds, *self._send(verb, args))

    async def ask_soon(self, verb: str, **args: Any) -> Any:
        """The same without holding up the event loop."""
        process, future = self._send(verb, args)
        try:
            return _value(await asyncio.wait_for(asyncio.wrap_future(future), self._seconds))
        except TimeoutError:
            raise self._late(process, verb, self._seconds) from None

    def tell(self, verb: str, **args: Any) -> None:
        """Send a request whose answer nobody waits for; it is carried out before any later one."""
        self._send(verb, args)

    @property
    def alive(self) -> int:
        """The number of the process that runs now, 0 for none."""
        return self.starts if self._process is not None and self._process.running else 0

    @property
    def pid(self) -> int:
        """Of the process that runs now, 0 for none."""
        return self._process.popen.pid if self._process is not None and self._process.running else 0

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process = None

    def _send(self, verb: str, args: Mapping[str, Any]) -> tuple[_Process, Future[Any]]:
        with self._lock:
            if self._process is None or not self._process.running:
                self._process = self._started()
            return self._process, self._process.send(verb, args)

    def _answer(self, verb: str, seconds: float, process: _Process, future: Future[Any]) -> Any:
        try:
            return _value(future.result(seconds))
        except Late:
            raise self._late(process, verb, seconds) from None

    def _late(self, process: _Process, verb: str, seconds: float) -> InfraFault:
        process.kill()
        return InfraFault(f"the world server {self.name} gave no answer to {verb!r} in {seconds:g} s")

    def _started(self) -> _Process:
        try:
            process = _Process(self._command, self._environ)
        except OSError as error:
            raise self._unusable(str(error)) from error
        self.starts += 1
        future = process.send("hello", {})
        try:
            reply = future.result(LOAD_SECONDS)
        except (Late, InfraFault) as error:
            process.kill()
            raise self._unusable(process.complaint() or str(error)) from error
        if "error" in reply:
            process.kill()
            raise self._unusable(reply["error"])
        self.hello: Mapping[str, Any] = reply["value"]
        return process

    def _unusable(self, why: str) -> MuarlError:
        return MuarlError(
            f"the world server {self.name} cannot be started",
            where=" ".join(self._command),
            why=why,
            next_step="check the checkout and the interpreter that are named for it",
            code=ExitCode.MISSING_INPUT,
        )


class _Process:
    """One run of the server's program, with a thread that hands its answers to who waits for them."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environ},
            start_new_session=True,  # a Ctrl-C is for us; we end it
        )
        self._waiting: dict[int, Future[Any]] = {}
        self._asked = 0
        self._over = False
        self._guard = threading.Lock()
        self._tail: deque[str] = deque(maxlen=TAIL)
        for work in (self._read, self._listen):
            threading.Thread(target=work, daemon=True).start()

    @property
    def running(self) -> bool:
        return not self._over and self.popen.poll() is None

    def send(self, verb: str, args: Mapping[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._guard:
            self._asked += 1
            number = self._asked
            self._waiting[number] = future
            line = json.dumps({"id": number, "verb": verb, "args": dict(args)}) + "\n"
            try:
                assert self.popen.stdin is not None
                self.popen.stdin.write(line.encode())
                self.popen.stdin.flush()
            except (OSError, ValueError):
                self._waiting.pop(number)
                future.set_exception(self._death())
            if self._over and number in self._waiting:
                self._waiting.pop(number).set_exception(self._death())
        return future

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def complaint(self) -> str:
        """The last lines it wrote on standard error."""
        return "\n".join(self._tail)[-1500:]

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            try:
                reply = json.loads(line)
                future = self._waiting.pop(reply["id"], None)
            except (ValueError, KeyError, TypeError):  # no server of ours: it is not to be trusted any more
                self.popen.kill()
                break
            if future is not None and not future.cancelled():
                future.set_result(reply)
        with self._guard:
            self._over = True
            owed = list(self._waiting.values())
            self._waiting.clear()
        for future in owed:
            if not future.done():
                future.set_exception(self._death())

    def _listen(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self._tail.append(line.decode(errors="replace").rstrip())

    def _death(self) -> InfraFault:
        last = self._tail[-1] if self._tail else "no last words"
        return InfraFault(f"the world server died (exit {self.popen.poll()}): {last[:300]}")


def _value(reply: Mapping[str, Any]) -> Any:
    if "error" in reply:
        raise ToolFault(f"the world server: {reply['error']}")
    return reply["value"]
