"""The initial state of a server: a folder that is made once and copied before every episode.

Invariant: an episode starts only on a directory whose hash is the seed's; what a server or an earlier episode left
behind is gone, or the directory is not used.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.mcp.definition import Server
from muarl_cli.worlds.mcp.snapshots import Tables, fingerprint, snapshot, tree_hash


@dataclass(frozen=True)
class Seed:
    """The initial state as files; `hash` is over all of their names and bytes."""

    server: Server
    folder: Path
    hash: str

    @cached_property
    def tables(self) -> Tables:
        return snapshot(self.server.snapshot, self.folder)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.tables)

    @cached_property
    def _bodies(self) -> dict[str, bytes | None]:
        """Everything in the seed by its name: bytes, None for a directory."""
        return {
            path.relative_to(self.folder).as_posix(): None if path.is_dir() else path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
        }

    def lay(self, place: Path) -> bool:
        """Make the content of `place` that of the seed, the directory itself kept (a server stands in it); whether the
        hash is the seed's afterwards. What is equal is left alone: most of a state is not touched by an episode."""
        for path in sorted(place.rglob("*"), reverse=True):  # what is inside a directory comes before it
            name, is_folder = path.relative_to(place).as_posix(), path.is_dir() and not path.is_symlink()
            fits = name in self._bodies and (self._bodies[name] is None) == is_folder and not path.is_symlink()
            if is_folder and not fits:
                path.rmdir()
            elif not is_folder and not (fits and path.read_bytes() == self._bodies[name]):
                path.unlink()
        for name, body in self._bodies.items():
            target = place / name
            if not target.exists():
                if body is None:
                    target.mkdir()
                else:
                    shutil.copy2(self.folder / name, target)
        return tree_hash(place) == self.hash


def make_seed(server: Server, place: Path, write: Callable[[Path], None] | None = None) -> Seed:
    """Carry out the server's `reset` in an empty folder: copied files, written files, databases, a command; and what
    `write` puts there."""
    place.mkdir(parents=True)
    if write is not None:
        write(place)
    reset = server.reset
    if "folder" in reset:
        source = server.folder / reset["folder"]
        if not source.is_dir():
            raise _failed(server, f"no folder {source}")
        shutil.copytree(source, place, dirs_exist_ok=True)
    for name, text in reset.get("files", {}).items():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for name, script in reset.get("sqlite", {}).items():
        try:
            with sqlite3.connect(place / name) as connection:
                connection.executescript(script)
        except sqlite3.Error as error:
            raise _failed(server, f"{name}: {error}") from None
        finally:
            connection.close()
    if "command" in reset:
        _command(server, [str(part) for part in reset["command"]], place)
    return Seed(server, place, tree_hash(place))


def _command(server: Server, command: list[str], place: Path) -> None:
    from muarl_cli.worlds.mcp.environments import environment_of

    first, *rest = command
    own = environment_of(server) / "bin" / first
    program = str(own) if server.packages and own.is_file() else first
    try:
        done = subprocess.run([program, *rest], cwd=place, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(server, str(error)) from None
    if done.returncode:
        raise _failed(server, (done.stderr or done.stdout).strip()[-300:])


def _failed(server: Server, why: str) -> MuarlError:
    return MuarlError(
        f"the initial state of mcp:{server.name} could not be made",
        where=str(server.folder),
        why=why,
        next_step="mend `reset` in the server file",
        code=ExitCode.BAD_DATA,
    )
