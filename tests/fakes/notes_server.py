"""A real MCP server for tests: notes in a file of its working directory, and every way to misbehave.

`python notes_server.py` speaks over stdio. Its state is `notes.txt`, a line a note; besides it keeps a count in memory,
which is what a well-behaved server does not do.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("notes")
NOTES = Path("notes.txt")
_calls = 0


@server.tool()
def add_note(text: str) -> str:
    """Add a note."""
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return f"noted: {text}"


@server.tool()
def list_notes() -> str:
    """All notes, a line each."""
    return NOTES.read_text(encoding="utf-8")


@server.tool()
def where() -> str:
    """The directory of the notes."""
    return str(NOTES.resolve())


@server.tool()
def read_path(path: str) -> str:
    """A file by its path."""
    return Path(path).read_text(encoding="utf-8")


@server.tool()
def process_id() -> str:
    """The number of this process."""
    return str(os.getpid())


@server.tool()
def refuse() -> str:
    """Always an error of the domain."""
    raise ValueError("the notes are closed")


@server.tool()
def soft_error() -> str:
    """An error that is not marked as one."""
    return "Error: soft"


@server.tool()
def long_text(characters: int) -> str:
    """So many characters."""
    return "x" * characters


@server.tool()
def write_slowly(text: str, seconds: float) -> str:
    """Writes the note after so many seconds."""
    time.sleep(seconds)
    return add_note(text)


@server.tool()
def die(text: str) -> str:
    """Writes half of it and is gone."""
    add_note(text)
    os._exit(3)


@server.tool()
def spoil() -> str:
    """Leaves files behind that make the state unreadable or are in the way."""
    Path("left").mkdir()
    Path("left/behind.txt").write_text("secret of another episode", encoding="utf-8")
    NOTES.unlink()
    NOTES.symlink_to("left/behind.txt")
    return "spoilt"


if __name__ == "__main__":
    server.run()
