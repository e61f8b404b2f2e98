"""BFCL's two data revisions, each in an environment and a process of its own: what is installed, loaded and asked.

V3 is what the paper reports, V4 the present leaderboard; about half of their multi-turn entries differ, so a score
names its revision. Invariant: nothing of the package is imported here; a trial that outlives a crashed process is
opened again there and its calls are made again, in their order.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from muarl_cli.benchmarks.checkouts import WORKERS
from muarl_cli.benchmarks.environments import Environment
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.server import WorldServer

MULTI_TURN = ("base", "miss_func", "miss_param", "long_context")
CATEGORIES = (*MULTI_TURN, "parallel")
VERSIONS = {"v3": "2025.8.6.2", "v4": "2026.3.23"}
"""data revision -> the last version of `bfcl-eval` with it"""
_LIBRARIES = ("mpmath==1.3.0", "filelock>=3.16")
"""what the executor, the checkers and the loader import; the other thirty dependencies are clients of vendors"""
_COMMAND_LINE = (
    "requests",
    "tqdm",
    "numpy==1.26.4",
    "pandas",
    "huggingface_hub",
    "pydantic",
    "python-dotenv",
    "tree_sitter==0.21.3",
    "tree-sitter-java==0.21.0",
    "tree-sitter-javascript==0.21.4",
    "openai",
    "mistralai==1.7.0",
    "anthropic",
    "typer",
    "tabulate",
    "google-genai",
    "qwen-agent",
    "mpmath==1.3.0",
    "tenacity",
    "writer-sdk",
    "overrides",
    "boto3",
    "filelock>=3.16",
    "soundfile",
    "datamodel-code-generator==0.25.7",
    "python-dateutil",
)
_COHERE = {"v3": "cohere==5.13.3", "v4": "cohere==5.18.0"}


def environment(split: str) -> Environment:
    """The small environment of a data revision: executor, checkers, data."""
    version = VERSIONS[split]
    return Environment(f"bfcl-{split}-{version}", (f"bfcl-eval=={version}",), _LIBRARIES)


def official_environment(split: str) -> Environment:
    """What the official command line needs for multi-turn categories; half a gigabyte, for comparisons only."""
    version = VERSIONS[split]
    return Environment(f"bfcl-{split}-{version}-official", (f"bfcl-eval=={version}",), (*_COMMAND_LINE, _COHERE[split]))


@dataclass(frozen=True)
class Category:
    """The loaded entries of one category."""

    name: str
    """the official name: multi_turn_base"""
    prefix: str
    """of the official files: BFCL_v4"""
    step_limit: int
    entries: tuple[Mapping[str, Any], ...]


class Package:
    """One data revision. Thread-safe: requests are answered one after the other."""

    def __init__(self, split: str) -> None:
        own = environment(split)
        if not own.ready:
            raise MuarlError(
                f"BFCL {split} is not installed",
                where=str(own.folder),
                next_step="muarl bench install bfcl",
                code=ExitCode.MISSING_INPUT,
            )
        self.split, self.version = split, VERSIONS[split]
        command = [str(own.python), str(WORKERS / "serving.py"), "serve_bfcl", str(own.folder / "scratch")]
        self.server = WorldServer(f"bfcl {split}", command)
        self._loaded: dict[str, Category] = {}
        self._generation = 0
        self._lock = threading.Lock()

    @property
    def revision(self) -> dict[str, str]:
        """What has to stand beside every score."""
        return {"package": f"bfcl-eval {self.version}", "data": f"BFCL_{self.split}"}

    def category(self, name: str) -> Category:
        """The entries of a category, loaded once."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def generation(self) -> int:
        """Which process answers now, with all categories loaded in it; trials of another one are gone."""
        with self._lock:
            if self.server.alive != self._generation or not self._generation:
                for name in self._loaded:
                    self._load(name)
                self._generation = self.server.alive
            return self._generation

    def _load(self, name: str) -> Category:
        official = name if name == "parallel" else f"multi_turn_{name}"
        found = self.server.load("load", category=official)
        self._generation = self.server.alive
        return Category(official, found["prefix"], found["step_limit"], tuple(found["entries"]))


class Trial:
    """One entry's private instances in the process."""

    def __init__(self, package: Package, category: str, entry: str) -> None:
        self._package, self._category, self._entry = package, category, entry
        self._name = f"t{os.urandom(8).hex()}"  # the executor wants an identifier, and never the same one twice
        self._generation = 0
        self._calls: list[tuple[str, Mapping[str, Any]]] = []

    def call(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`text`, `ok` and `writes` of an executed call; raises a fault where the process fails."""
        self._open()
        answer: Mapping[str, Any] = self._ask("call", name=name, arguments=dict(arguments))
        self._calls.append((name, arguments))
        return answer

    def state(self) -> str:
        """A hash of the state that the official check compares."""
        self._open()
        return str(self._ask("state"))

    def close(self) -> None:
        if self._generation and self._generation == self._package.server.alive:
            self._ask("close")
            self._generation = 0

    def _open(self) -> None:
        now = self._package.generation()
        if now == self._generation:
            return
        self._package.server.ask("open", trial=self._name, category=self._category, entry=self._entry)
        for name, arguments in self._calls:
            self._ask("call", name=name, arguments=dict(arguments))
        self._generation = now

    def _ask(self, operation: str, **values: Any) -> Any:
        return self._package.server.ask(operation, trial=self._name, **values)


@lru_cache(maxsize=2)
def open_package(split: str) -> Package:
    """The package of a data revision, opened once; raises `MuarlError` where it is not installed."""
    if split not in VERSIONS:
        raise MuarlError(f"BFCL has no data revision {split!r}", next_step="v3 or v4", code=ExitCode.USAGE)
    return Package(split)


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call as the official result files hold them: JSON text, floats kept apart from integers."""
    return json.dumps(dict(arguments))
