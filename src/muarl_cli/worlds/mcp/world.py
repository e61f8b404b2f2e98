"""A world whose tools are a server's: one episode on one process of a pool.

A process is taken at the first call and given back at the end, so that an episode that uses no tool costs none.
Invariants: what a call changed is what differs in the state on disk before and after it; an episode sees the state of
no other one; what cannot be known any more is a fault, never a reward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.protocols import ToolFault, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.worlds.mcp.background import background
from muarl_cli.worlds.mcp.pool import Pool
from muarl_cli.worlds.mcp.process import Process
from muarl_cli.worlds.mcp.snapshots import Tables, changes, fingerprint, snapshot
from muarl_cli.worlds.store import Base
from muarl_cli.worlds.toolkit import COMMON, StoreWorld

OWN_TOOLS = {tool.spec.name: tool for tool in COMMON}
"""calculate, think and the hand-over: no server offers them, and every scenario has them"""


class McpWorld:
    """One episode on a server."""

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(
        self, pool: Pool, tools: Callable[[], tuple[ToolSpec, ...]], on_first_call: Callable[[], None]
    ) -> None:
        self._pool, self._list_tools, self._on_first_call = pool, tools, on_first_call
        self._own = StoreWorld(Base({}), OWN_TOOLS, "")
        self._process: Process | None = None
        self._begun = self._closed = False
        self._tables: Tables = {}
        """the state as it was read last"""

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self._list_tools()

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        if call.name in OWN_TOOLS:
            return await self._own.call(call, requestor)
        for rule in self._pool.server.refused:
            if rule.concerns(call.name, call.arguments):
                return ToolResult(f"Error: {rule.say}", ok=False)
        if not self._begun:
            self._begun = True
            self._on_first_call()
        holder = id(asyncio.current_task())
        return await asyncio.wrap_future(background().submit(self._call(call, holder)))

    async def _call(self, call: ToolCall, holder: int) -> ToolResult:
        process = self._process or await self._begin(holder)
        reply = await process.call(call.name, call.arguments)
        if self._pool.server.tools[call.name] is not ToolClass.WRITE:
            return ToolResult(reply.text, reply.ok)
        before, self._tables = self._tables, await asyncio.to_thread(self._read, process)
        return ToolResult(reply.text, reply.ok, changes(before, self._tables, self._pool.server.snapshot))

    async def _begin(self, holder: int) -> Process:
        process = await self._pool.lease(holder)
        if self._closed:  # the episode ended while it waited
            self._pool.give_back(process)
            raise asyncio.CancelledError
        self._process, self._tables = process, self._pool.seed.tables
        return process

    def _read(self, process: Process) -> Tables:
        try:
            return snapshot(self._pool.server.snapshot, process.folder)
        except Exception as error:  # whatever made it unreadable, the state is not known any more
            process.stop("its state cannot be read")
            why = f"{type(error).__name__}: {error}"
            raise ToolFault(f"the state of mcp:{self._pool.server.name} cannot be read: {why}") from error

    def fingerprint(self) -> str:
        if self._process is None:
            return self._pool.seed.fingerprint
        return fingerprint(self._read(self._process))

    def close(self) -> None:
        background().submit(self._end())

    async def _end(self) -> None:
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            self._pool.give_back(process)
