"""Checkouts of benchmarks that are no packages: where they are, and the world server of each.

A checkout is named by a setting (`tau1_root`) or by the environment (MUARL_TAU1_ROOT); the setting counts first.
Invariant: one server a checkout and interpreter in this process, whatever scenarios are opened on it.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.server import WorldServer

CLONE = {
    "tau1": "git clone https://github.com/sierra-research/tau-bench",
    "tau2": "git clone https://github.com/sierra-research/tau2-bench",
}
WORKERS = Path(__file__).parent / "workers"


def use_checkouts(roots: dict[str, str]) -> None:
    """Take what a stage's settings name ({"tau1_root": ..., "tau2_root": ..., "tau2_python": ...}); empty = as the
    environment has it. The names go into the environment, so that processes of this run see them too."""
    for name, value in roots.items():
        if value:
            os.environ[_variable(name)] = value


def root_of(source: str) -> Path | None:
    """The checkout of a benchmark, None where none is named. Raises `MuarlError` where it is named and not there."""
    named = os.environ.get(_variable(f"{source}_root"), "")
    if not named:
        return None
    root = Path(named).expanduser().resolve()
    if not root.is_dir():
        raise MuarlError(
            f"{named} is no folder",
            why=f"it is named as the checkout of {source}",
            next_step=f"{CLONE[source]}, and name the folder with --{source}-root or {_variable(f'{source}_root')}",
            code=ExitCode.MISSING_INPUT,
        )
    return root


def python_of(source: str) -> str:
    """The interpreter that runs a checkout's code: the one that is named for it, else this one."""
    return os.environ.get(_variable(f"{source}_python"), "") or sys.executable


@lru_cache(maxsize=8)
def server_of(source: str, root: Path, python: str) -> WorldServer:
    """The world server of a checkout."""
    return WorldServer(source, [python, str(WORKERS / "serving.py"), f"serve_{source}", str(root)])


def required_server(source: str) -> WorldServer:
    """The server of a benchmark that exists only as a checkout. Raises `MuarlError` where none is named."""
    return server_of(source, required_root(source), python_of(source))


def required_root(source: str) -> Path:
    """The checkout of a benchmark. Raises `MuarlError` where none is named."""
    root = root_of(source)
    if root is None:
        raise MuarlError(
            f"no checkout of {source} is named, and this needs one",
            next_step=f"{CLONE[source]}, and name the folder with --{source}-root or {_variable(f'{source}_root')}",
            code=ExitCode.MISSING_INPUT,
        )
    return root


def _variable(name: str) -> str:
    return f"MUARL_{name.upper()}"
