"""A person at the terminal as the user, and the terminal itself (which a person who plays the agent uses as well).

Reading works on a terminal, a pipe and a file alike: a thread of its own reads the descriptor, so that nothing else
waits and Ctrl-C works at once. Invariant: what a model or tool said is cleaned before it is shown, so it cannot move
the cursor or forge a line; a person who leaves in the middle makes an invalid episode, never a failure of the agent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import BudgetSpent, Stage, UserSession, UserTurn
from muarl_cli.users.messages import read_reply

ENDS = {
    "/stop": EndReason.USER_STOP,
    "/transfer": EndReason.TRANSFER,
    "/out-of-scope": EndReason.OUT_OF_SCOPE,
}
HELP = "type what you say and press Enter; /stop when you are done, /transfer when you were handed over, /out-of-scope"
_CHUNK = 4096


class Terminal:
    """Lines in, words out. `descriptor` is read; `clean` takes control signs out of whatever `write` is to show."""

    def __init__(self, write: Callable[[str], None], clean: Callable[[str], str], descriptor: int = 0) -> None:
        self._write, self._clean, self._descriptor = write, clean, descriptor
        self._lines: asyncio.Queue[str | None] | None = None
        self.turn = asyncio.Lock()
        """held by the conversation that has the terminal"""

    def show(self, who: str, text: str) -> None:
        """Words of somebody, a line each."""
        for line in self._clean(text).splitlines() or [""]:
            self._write(f"{who}: {line}\n")

    async def line(self, prompt: str) -> str:
        """The next line without its end. Raises `BudgetSpent` at the end of the input."""
        if self._lines is None:
            self._lines = asyncio.Queue()
            reader = threading.Thread(target=self._read, args=(asyncio.get_running_loop(), self._lines), daemon=True)
            reader.start()
        self._write(prompt)
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
            raise BudgetSpent("the person at the terminal left")
        if not os.isatty(self._descriptor):  # nobody echoes what comes through a pipe
            self._write(self._clean(line) + "\n")
        return line

    def _read(self, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
        """Runs in the reader's thread. It reads the bare descriptor: a thread that waits inside of `sys.stdin` would
        hold a lock that the interpreter needs when it ends."""
        rest = b""
        try:
            while piece := self._piece():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    loop.call_soon_threadsafe(lines.put_nowait, line.decode("utf-8", "replace"))
            if rest:
                loop.call_soon_threadsafe(lines.put_nowait, rest.decode("utf-8", "replace"))
            loop.call_soon_threadsafe(lines.put_nowait, None)
        except RuntimeError:  # the conversation is over, and its event loop is closed
            return

    def _piece(self) -> bytes:
        try:
            return os.read(self._descriptor, _CHUNK)
        except OSError:  # a terminal that was closed
            return b""


class HumanUsers:
    """Opens users that are played by whoever sits at the terminal, one conversation at a time."""

    def __init__(self, terminal: Terminal, prompt: Callable[[Any], str]) -> None:
        self._terminal, self._prompt = terminal, prompt

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "human", "model": "", "prompt_hash": "", "persona": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _HumanUser(self._terminal, self._prompt(task))


class _HumanUser:
    def __init__(self, terminal: Terminal, brief: str) -> None:
        self._terminal, self._brief = terminal, brief
        self._has_terminal = False

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        terminal = self._terminal
        if not self._has_terminal:
            await terminal.turn.acquire()
            self._has_terminal = True
            terminal.show("you are the user", self._brief)
            terminal.show("how", HELP)
        for event in news:
            if event.heard_by_user():
                terminal.show("agent", event.text)
        while True:
            line = (await terminal.line("you> ")).strip()
            if line in ENDS:
                return UserTurn(end=ENDS[line])
            if line.startswith("/"):
                terminal.show("how", HELP)
                continue
            words, end = read_reply(line)
            if words or end is not None:
                return UserTurn(words, end)

    def close(self) -> None:
        if self._has_terminal:
            self._terminal.turn.release()
            self._has_terminal = False
