"""Server processes that are started before they are needed and serve one episode after the other.

Each process stands in a directory of its own; before every episode its content is swapped for the seed and its hash is
checked. Invariants: a process serves one episode at a time; one whose state is in doubt (dead, hung, a call cut off, a
wrong hash) is never used again, and a new one takes its place; gold states come from a process that no episode uses.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import MuarlError
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.definition import Server
from muarl_cli.worlds.mcp.process import Process
from muarl_cli.worlds.mcp.seeds import Seed, make_seed
from muarl_cli.worlds.mcp.snapshots import fingerprint, snapshot
from muarl_cli.worlds.scenario import GoldCall

READY = 2
"""processes started at once; more follow where an episode has waited"""
GROW_AFTER = 2.0
"""seconds in which no process comes back before an episode that waits gets one more: where agents think for long,
processes stand idle and more of them help; where they are busy, more of them only cost"""
EPISODES = 500
"""a process is replaced after this many episodes, so that a leak of a server stays small"""
TRIES = 3
"""processes that may turn out to be unusable, in a row, before an episode is given up"""


class Pool:
    """The processes of one server. Its coroutines run on the background loop only."""

    def __init__(self, server: Server, write: Callable[[Path], None] | None = None) -> None:
        self.server, self._write = server, write
        self.root = Path(tempfile.mkdtemp(prefix=f"muarl-mcp-{server.name}-"))
        self._idle: deque[Process] = deque()
        self._all: set[Process] = set()
        self._coming = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._holders: Counter[int] = Counter()
        self._held: dict[Process, int] = {}
        self._made = 0
        self._last_return = 0.0
        self._referee: Process | None = None
        self._judging = asyncio.Lock()
        self._tools: tuple[ToolSpec, ...] = ()
        self.started = self.lost = self.served = 0
        """processes started, processes given up, episodes served"""
        background().at_end(self.close)

    @cached_property
    def seed(self) -> Seed:
        """The initial state, made at first use: by the scenario's own code where it has some, else by the file."""
        return make_seed(self.server, self.root / "seed", self._write)

    async def tools(self) -> tuple[ToolSpec, ...]:
        """The allowed tools, as the server describes them; starts the first processes."""
        if not self._tools:
            first = await self._start()
            self._put_back(first)
            for _ in range(min(READY, self.server.processes) - 1):
                self._coming += 1
                task = asyncio.create_task(self._start_ahead())
                task.add_done_callback(lambda done: done.exception())
        return self._tools

    async def _start_ahead(self) -> None:
        self._coming -= 1
        self._put_back(await self._start())

    async def _start(self) -> Process:
        """A new process in a new directory with the seed in it."""
        self._coming += 1
        try:
            self._made += 1
            folder = self.root / f"process-{self._made}"
            folder.mkdir()
            process = Process(self.server, folder)
            await asyncio.to_thread(self.seed.lay, folder)
            try:
                self._tools = await process.start()
            except BaseException:  # also when the caller was cancelled
                process.stop("it was not waited for")
                raise
        finally:
            self._coming -= 1
        self.started += 1
        self._all.add(process)
        return process

    def _put_back(self, process: Process) -> None:
        self._last_return = asyncio.get_running_loop().time()
        self._idle.append(process)
        self._wake()

    async def lease(self, holder: int) -> Process:
        """A process whose directory holds the seed and nothing else, until `give_back`.

        `holder` names who takes it: one that holds a process already gets a second one at once, or two episodes that
        both want a twin would wait for each other for ever. Raises `InfraFault` where no usable process can be had.
        """
        for _ in range(TRIES):
            process = await self._obtain(holder)
            if await self._reset(process):
                process.episodes += 1
                self._holders[holder] += 1
                self._held[process] = holder
                self.served += 1
                return process
            self._give_up(process, "its directory could not be reset")
        raise InfraFault(f"no usable process of mcp:{self.server.name} after {TRIES} tries")

    async def _reset(self, process: Process) -> bool:
        try:
            return not process.dead and await asyncio.to_thread(self.seed.lay, process.folder)
        except OSError:  # something else is at work in there
            return False
        except asyncio.CancelledError:
            self._give_up(process, "its reset was cut off")
            raise

    async def _obtain(self, holder: int) -> Process:
        while True:
            if self._idle:
                return self._idle.popleft()
            count = len(self._all) + self._coming
            if count < min(READY, self.server.processes) or self._holders[holder]:
                return await self._start_for_episode()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout(GROW_AFTER):
                    await waiter
            except TimeoutError:
                quiet = asyncio.get_running_loop().time() - self._last_return >= GROW_AFTER
                if quiet and not self._coming and len(self._all) < self.server.processes:
                    return await self._start_for_episode()
            finally:
                with suppress(ValueError):
                    self._waiting.remove(waiter)

    async def _start_for_episode(self) -> Process:
        try:
            return await self._start()
        except MuarlError as error:  # it did start before: this is an accident, not a wrong setting
            raise InfraFault(" ".join(error.lines())) from error

    def give_back(self, process: Process) -> None:
        """The episode is over; the process serves the next one unless it is in doubt or worn out."""
        holder = self._held.pop(process, 0)
        self._holders[holder] -= 1
        if not self._holders[holder]:
            del self._holders[holder]
        if process.dead or process.episodes >= EPISODES:
            self._give_up(process, "worn out")
        else:
            self._put_back(process)

    def _give_up(self, process: Process, why: str) -> None:
        process.stop(why)
        self._all.discard(process)
        self.lost += 1
        self._wake()

    def _wake(self) -> None:
        """Something has changed for whoever waits longest: a process is there, or there is room for a new one."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def replay(self, calls: Sequence[tuple[GoldCall, bool]]) -> tuple[str, str]:
        """(fingerprint, problem) after `calls`, on a process that no episode uses; each comes with whether it may fail,
        and `problem` names one that failed and may not."""
        async with self._judging:
            for last in (False, True):
                try:
                    return await self._replay(calls)
                except InfraFault:
                    self._referee = None
                    if last:
                        raise
        raise AssertionError("unreachable")

    async def _replay(self, calls: Sequence[tuple[GoldCall, bool]]) -> tuple[str, str]:
        if self._referee is None or self._referee.dead:
            self._referee = await self._start_for_episode()
            self._all.discard(self._referee)
        referee = self._referee
        if not await asyncio.to_thread(self.seed.lay, referee.folder):
            referee.stop("its directory could not be reset")
            raise InfraFault(f"the directory of mcp:{self.server.name} could not be reset")
        for call, may_fail in calls:
            reply = await referee.call(call.name, call.arguments)
            if not (reply.ok or may_fail):
                return "", f"{call.name}: {reply.text}"
        return fingerprint(snapshot(self.server.snapshot, referee.folder)), ""

    async def close(self) -> None:
        """Stop all processes and remove their directories."""
        processes = [*self._all, *([self._referee] if self._referee else [])]
        for process in processes:
            process.stop("the pool is closed")
        await asyncio.gather(*(process.ended() for process in processes))
        self._idle.clear()
        self._all.clear()
        self._referee = None
        shutil.rmtree(self.root, ignore_errors=True)
