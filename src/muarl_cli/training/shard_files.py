"""A trainer's state on disk: every rank writes and reads its own safetensors file, and one JSON speaks for all.

Collective: all ranks call both functions, with a folder that all of them see. Invariant: nothing here is a pickle, and
a file that one rank could not write is an error on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.optim import require_ranks
from muarl_cli.training.ranks import Ranks


def shard_name(ranks: Ranks) -> str:
    """The file, without its ending, of this rank's part of the optimiser's state."""
    return "optimiser" if ranks.size == 1 else f"optimiser-{ranks.rank:05d}-of-{ranks.size:05d}"


def write_shard(trainer: Any, folder: Path) -> dict[str, Any]:
    """Write this rank's tensors into `folder`; returns the JSON state, the same on every rank. Raises what went wrong
    on this rank, or `MuarlError` where another could not write."""
    from safetensors.torch import save_file

    ranks: Ranks = trainer.optimiser.ranks
    tensors, state = trainer.state()
    failed: Exception | None = None
    try:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, str(folder / f"{shard_name(ranks)}.safetensors"))
    except Exception as error:
        failed = error
    others = ranks.gather("" if failed is None else str(failed))
    if failed is not None:
        raise failed
    bad = [f"rank {rank}: {why}" for rank, why in enumerate(others) if why]
    if bad:
        raise MuarlError("a process could not write its state", where=str(folder), why=bad[0], code=ExitCode.TEMPORARY)
    found: dict[str, Any] = state
    return found


def read_shard(trainer: Any, folder: Path, state: Mapping[str, Any]) -> None:
    """Go on where `write_shard` was called. Raises `MuarlError` for another number of processes, or a missing file."""
    from safetensors.torch import load_file

    ranks: Ranks = trainer.optimiser.ranks
    require_ranks(ranks, state)
    path = folder / f"{shard_name(ranks)}.safetensors"
    if not path.is_file():
        raise MuarlError("the checkpoint lacks the state of a process", where=str(path), code=ExitCode.BAD_DATA)
    trainer.load_state(load_file(str(path)), state)
