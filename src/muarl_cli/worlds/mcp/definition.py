"""A server file: what a server is started with, which of its tools may be used, how its state is made and read.

Invariant: everything the pool knows of a server stands in this one file; a key that is missing, misspelt or of the
wrong kind is a `MuarlError` that names file and key, before any process is started.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from muarl_cli.conversation.events import ToolClass
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.grammar import nearest

_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
MODES = ("auto", "legacy")
SNAPSHOTS = ("sqlite", "git", "xlsx", "files")
RESETS = ("folder", "files", "sqlite", "command")


@dataclass(frozen=True)
class Refused:
    """Calls that never reach the server: those of `tools` whose `argument` matches (or, with `unless`, does not)."""

    tools: tuple[str, ...]
    argument: str
    pattern: re.Pattern[str]
    unless: bool
    say: str

    def concerns(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        if tool not in self.tools or self.argument not in arguments:
            return False
        found = self.pattern.search(str(arguments[self.argument])) is not None
        return found != self.unless


@dataclass(frozen=True)
class Server:
    """One server, as its file describes it."""

    name: str
    about: str
    folder: Path
    """where the file lies; relative paths in it start here"""
    packages: tuple[str, ...]
    """what its own environment is made of; empty = the command is on the PATH"""
    command: tuple[str, ...]
    """run in the directory that holds the state; {python} is this interpreter"""
    environment: Mapping[str, str]
    """variables of the process, beside HOME, PATH and the like"""
    mode: str
    """auto, or legacy for servers that know the first generation of the protocol only"""
    tools: Mapping[str, ToolClass]
    """the allowed ones, and what each may do to the state"""
    refused: tuple[Refused, ...]
    failed: re.Pattern[str] | None
    """answers that are errors although the server does not mark them so"""
    timeout: float
    """seconds a call"""
    max_result: int
    """characters of an answer; the rest is cut off, and the cut is said"""
    processes: int
    """processes at the same time, at most"""
    reset: Mapping[str, Any]
    snapshot: Mapping[str, Any]
    scenario: Mapping[str, Any]
    """the rest of the file: policy, tasks or their language"""


_REQUIRED = ("name", "command", "tools", "reset", "snapshot", "timeout", "max_result", "processes")
_KEYS = (*_REQUIRED, "about", "packages", "environment", "mode", "refuse", "failed", "scenario")


def read_server(path: Path) -> Server:
    """The server that a file describes. Raises `MuarlError` (CONFIG) for what is wrong in it."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MuarlError(
            f"no server file {path}",
            why=error.strerror or str(error),
            next_step="docs/mcp_servers.md shows how to write one",
            code=ExitCode.MISSING_INPUT,
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _wrong(path, f"not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(data, dict):
        raise _wrong(path, "a server file is a mapping")
    for key in data:
        if key not in _KEYS:
            raise _wrong(path, f"unknown key {key!r}", nearest(str(key), _KEYS))
    if missing := [key for key in _REQUIRED if key not in data]:
        raise _wrong(path, f"{missing[0]} is missing", f"a server file needs {', '.join(_REQUIRED)}")
    try:
        return _server(path, data)
    except (TypeError, ValueError, KeyError, AttributeError, re.error) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}") from None


def _server(path: Path, data: Mapping[str, Any]) -> Server:
    name, mode = str(data["name"]), str(data.get("mode", "auto"))
    if not _NAME.fullmatch(name):
        raise _wrong(path, f"the name {name!r} is no lower-case word")
    if mode not in MODES:
        raise _wrong(path, f"unknown mode {mode!r}", f"one of {', '.join(MODES)}")
    kind = data["snapshot"].get("kind")
    if kind not in SNAPSHOTS:
        raise _wrong(path, f"unknown snapshot kind {kind!r}", f"one of {', '.join(SNAPSHOTS)}")
    if unknown := [key for key in data["reset"] if key not in RESETS]:
        raise _wrong(path, f"unknown reset {unknown[0]!r}", f"of {', '.join(RESETS)}")
    if not data["tools"] or not isinstance(data["tools"], dict):
        raise _wrong(path, "tools maps each allowed tool to read or write")
    command = data["command"]
    if not command or not isinstance(command, list):
        raise _wrong(path, "command is a list: the program and its arguments")
    timeout, max_result, processes = float(data["timeout"]), int(data["max_result"]), int(data["processes"])
    if not (timeout > 0 and max_result >= 100 and processes >= 1):
        raise _wrong(path, "timeout is above 0, max_result at least 100, processes at least 1")
    return Server(
        name=name,
        about=str(data.get("about", "")),
        folder=path.resolve().parent,
        packages=tuple(data.get("packages", ())),
        command=tuple(str(part) for part in command),
        environment={str(k): str(v) for k, v in data.get("environment", {}).items()},
        mode=mode,
        tools={str(tool): ToolClass(klass) for tool, klass in data["tools"].items()},
        refused=tuple(_refused(row) for row in data.get("refuse", ())),
        failed=re.compile(data["failed"]) if data.get("failed") else None,
        timeout=timeout,
        max_result=max_result,
        processes=processes,
        reset=dict(data["reset"]),
        snapshot=dict(data["snapshot"]),
        scenario=dict(data.get("scenario", {})),
    )


def _refused(row: Mapping[str, Any]) -> Refused:
    unless = "unless" in row
    pattern = re.compile(row["unless"] if unless else row["matches"], re.IGNORECASE)
    return Refused(tuple(row["tools"]), row["argument"], pattern, unless, row["say"])


def _wrong(path: Path, why: str, next_step: str = "") -> MuarlError:
    return MuarlError(
        "the server file cannot be used", where=str(path), why=why, next_step=next_step, code=ExitCode.CONFIG
    )
