"""The environments of MCP servers: each server's packages apart from ours and from each other's.

A server may need another generation of the SDK than the client. An environment is a folder of the cache, named by what
is in it. Invariant: it is used only where its marker is there, which is written last, so that an interrupted
installation is made again and never half used.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.mcp.definition import Server

_MARKER = "ready.json"


def cache_folder() -> Path:
    """Where environments lie: the user's cache, `XDG_CACHE_HOME` honoured."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "muarl" / "mcp"


def environment_of(server: Server) -> Path:
    """The folder of the server's environment, whether it is there or not."""
    version = "{}.{}".format(*sys.version_info)
    return cache_folder() / f"{server.name}-{digest([sorted(server.packages), version])[:12]}"


def installed(server: Server) -> bool:
    """Whether the server can be started: its environment is complete, or it needs none."""
    return not server.packages or (environment_of(server) / _MARKER).is_file()


def install(server: Server) -> Path:
    """Make the server's environment, where it is not there yet; returns its folder.

    Raises `MuarlError` (UNAVAILABLE) where the packages cannot be had; what is left then is made anew next time.
    """
    folder = environment_of(server)
    if not server.packages:
        return folder
    with _alone(folder):
        if installed(server):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*command, *server.packages], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise MuarlError(
                f"the packages of mcp:{server.name} could not be installed",
                where=str(folder),
                why=lines[-1] if lines else f"pip ended with {done.returncode}",
                next_step=f"muarl mcp install {server.name}, once a package registry can be reached",
                code=ExitCode.UNAVAILABLE,
            )
        marker = folder / f"{_MARKER}.new"
        marker.write_text(json.dumps({"packages": list(server.packages)}), encoding="utf-8")
        marker.replace(folder / _MARKER)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two installations of the same environment wait for each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def program_of(server: Server) -> list[str]:
    """The command line of the server, its program found; raises `MuarlError` (MISSING_INPUT) where it is not there."""
    if not installed(server):
        raise MuarlError(
            f"the server of mcp:{server.name} is not installed",
            why=f"it needs {', '.join(server.packages)} in an environment of its own",
            next_step=f"muarl mcp install {server.name} (without a name: all four servers)",
            code=ExitCode.MISSING_INPUT,
        )
    first, *rest = (part.replace("{python}", sys.executable) for part in server.command)
    own = environment_of(server) / "bin" / first
    program = str(own) if server.packages and own.is_file() else shutil.which(first)
    if program is None:
        raise MuarlError(
            f"the program {first!r} of mcp:{server.name} was not found",
            where=str(server.folder),
            next_step="name it with its path, or list its packages under `packages`",
            code=ExitCode.MISSING_INPUT,
        )
    return [program, *(part.replace("{folder}", str(server.folder)) for part in rest)]
