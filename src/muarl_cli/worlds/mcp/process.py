"""One server process, spoken to through the official SDK, and what its answers and its silence mean.

The client is entered and left in one task, which owns it; calls come from others. Invariants: a call either returns
what the server said, or raises `InfraFault` (the process is gone) or `ToolFault` (no answer in time); after either the
process is never used again, since nobody knows what it has done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault, ToolFault
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.mcp.definition import Server
from muarl_cli.worlds.mcp.environments import program_of

START_SECONDS = 120.0
VIRTUAL = "/data"
"""how the directory of an episode is called in arguments and answers: processes have directories of their own, and a
log must not depend on which one it was"""
_GONE, _TIMED_OUT = -32000, -32001


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    text: str
    ok: bool


class Process:
    """A running server that stands in `folder`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.dead = ""
        """why it must not be used any more"""
        self.episodes = 0
        self._client: Any = None
        self._owner: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._errors = folder.with_name(folder.name + ".stderr")

    async def start(self) -> tuple[ToolSpec, ...]:
        """Start it; returns the allowed tools with the server's own descriptions and schemas, in the file's order.

        Raises `MuarlError` where it does not start or lacks an allowed tool.
        """
        ready: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(ready))
        try:
            async with asyncio.timeout(START_SECONDS):
                offered = {tool.name: tool for tool in await asyncio.shield(ready)}
        except TimeoutError:
            self.stop("it did not start")
            raise self._not_started(f"no answer within {START_SECONDS:.0f} s") from None
        if missing := [name for name in self.server.tools if name not in offered]:
            self.stop("it lacks a tool")
            raise MuarlError(
                f"the server of mcp:{self.server.name} has no tool {missing[0]!r}",
                next_step=f"it offers {', '.join(offered)}",
                code=ExitCode.CONFIG,
            )
        return tuple(
            ToolSpec(name, (offered[name].description or "").strip(), dict(offered[name].input_schema), klass)
            for name, klass in self.server.tools.items()
        )

    async def _own(self, ready: asyncio.Future[list[Any]]) -> None:
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # a server's stray output is its own affair
        try:
            from mcp import Client, StdioServerParameters
            from mcp.client.stdio import stdio_client

            program, *arguments = program_of(self.server)
            parameters = StdioServerParameters(
                command=program, args=arguments, env=dict(self.server.environment), cwd=self.folder
            )
            with open(self._errors, "w", encoding="utf-8") as errors:
                pipe = stdio_client(parameters, errlog=errors)
                async with Client(pipe, mode=self.server.mode, read_timeout_seconds=self.server.timeout) as client:
                    self._client = client
                    listed = (await client.list_tools()).tools
                    ready.set_result(listed)
                    await self._stop.wait()
        except (MuarlError, ImportError) as error:  # without the extra there is no SDK, and the command line says so
            if not ready.done():
                ready.set_exception(error)
        except Exception as error:
            self.dead = self.dead or _cause(error)
            if not ready.done():
                ready.set_exception(self._not_started(_cause(error)))
        finally:
            self.dead = self.dead or "stopped"
            if not ready.done():  # cancelled: whoever waits for the start must not wait for ever
                ready.set_exception(self._not_started("its task was cancelled"))

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        """Call a tool. Answers longer than `max_result` characters are cut."""
        from mcp import MCPError

        if self.dead:
            raise InfraFault(f"the server of mcp:{self.server.name} is gone: {self.dead}")
        answered = False
        try:
            async with asyncio.timeout(self.server.timeout + 5):
                result = await self._client.call_tool(
                    name, self._inside(arguments), read_timeout_seconds=self.server.timeout
                )
            answered = True
        except MCPError as error:
            if error.code not in (_GONE, _TIMED_OUT):
                answered = True
                return self._reply(f"Error: {error.message}", False)
            if error.code == _TIMED_OUT:
                raise self._no_answer(name) from None
            raise InfraFault(f"the server of mcp:{self.server.name} went away during {name}{self._said()}") from None
        except TimeoutError:
            raise self._no_answer(name) from None
        finally:
            if not answered:  # also when the caller was cancelled: the call may still be carried out
                self.stop(f"{name} was not answered")
        text = "\n".join(_text(part) for part in result.content)
        failed = self.server.failed is not None and self.server.failed.search(text) is not None
        return self._reply(text, not (result.is_error or failed))

    def _no_answer(self, name: str) -> ToolFault:
        return ToolFault(f"mcp:{self.server.name}: {name} gave no answer within {self.server.timeout:g} s")

    def _reply(self, text: str, ok: bool) -> Reply:
        text = text.replace(str(self.folder), VIRTUAL)
        most = self.server.max_result
        if len(text) > most:
            text = f"{text[:most]}\n[cut: {most} of {len(text)} characters]"
        return Reply(text, ok)

    def _inside(self, value: Any) -> Any:
        """The arguments with the virtual directory replaced by this process's own."""
        if isinstance(value, str):
            inside = value == VIRTUAL or value.startswith(f"{VIRTUAL}/")
            return str(self.folder) + value[len(VIRTUAL) :] if inside else value
        if isinstance(value, Mapping):
            return {key: self._inside(part) for key, part in value.items()}
        return [self._inside(part) for part in value] if isinstance(value, list) else value

    def _not_started(self, why: str) -> MuarlError:
        return MuarlError(
            f"the server of mcp:{self.server.name} does not start",
            where=" ".join(self.server.command),
            why=why + self._said(),
            next_step=f"muarl mcp check {self.server.name}",
            code=ExitCode.UNAVAILABLE,
        )

    def _said(self) -> str:
        """The last line the server wrote to its error stream."""
        with suppress(OSError):
            lines = [line.strip() for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
            return f"; its last words: {lines[-1][:200]}" if lines else ""
        return ""

    def stop(self, why: str) -> None:
        """Let it go; it is stopped, and killed where it does not listen, by the task that owns it."""
        self.dead = self.dead or why
        self._stop.set()

    async def ended(self) -> None:
        """Wait until the process is gone."""
        if self._owner is not None:
            with suppress(Exception):
                await self._owner


def _text(part: Any) -> str:
    """A part of an answer as text; what is none is named."""
    text = getattr(part, "text", None)
    return text if isinstance(text, str) else f"[{getattr(part, 'type', 'content')}]"


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
