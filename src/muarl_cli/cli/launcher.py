"""Several processes for one command: DeepSpeed's launcher or torchrun starts the same command line once a rank.

Invariant: what is started is this very command; a process that a launcher started never starts another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from muarl_cli.errors import ExitCode, MuarlError


class Launcher(StrEnum):
    """Who starts the ranks."""

    DEEPSPEED = "deepspeed"
    TORCHRUN = "torchrun"


def command_of(launcher: str, hostfile: Path | None, processes: int | None, arguments: Sequence[str]) -> list[str]:
    """The launcher's command for `muarl arguments`. Raises `MuarlError` for what does not go together."""
    if launcher not in set(Launcher):
        raise MuarlError(f"unknown launcher {launcher!r}", next_step="deepspeed or torchrun", code=ExitCode.USAGE)
    package = "torch" if launcher == Launcher.TORCHRUN else "deepspeed"
    if find_spec(package) is None:
        raise MuarlError(
            f"{package} is not installed",
            next_step="pip install 'muarl-cli[deepspeed]'",
            code=ExitCode.MISSING_INPUT,
        )
    if hostfile is not None and not hostfile.is_file():
        raise MuarlError(
            f"there is no hostfile {str(hostfile)!r}",
            next_step="write one line a host: NAME slots=8",
            code=ExitCode.MISSING_INPUT,
        )
    if launcher == Launcher.TORCHRUN:
        if hostfile is not None:
            raise MuarlError(
                "torchrun takes no hostfile",
                next_step="--launcher deepspeed; or start torchrun -m muarl_cli on each host yourself",
                code=ExitCode.USAGE,
            )
        count = str(processes) if processes else "auto"
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", count, "-m", "muarl_cli"]
    else:
        where = ["--hostfile", str(hostfile)] if hostfile else []
        count_ = ["--num_gpus", str(processes)] if processes else []
        start = ["deepspeed.launcher.runner", *where, *count_, "--no_local_rank", "--module", "muarl_cli"]
    return [sys.executable, "-m", *start, *arguments]


def start(launcher: str, hostfile: Path | None, processes: int | None) -> NoReturn:
    """Become the launcher of this very command. Raises `MuarlError` before anything is started."""
    command = command_of(launcher, hostfile, processes, sys.argv[1:])
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
