"""The processes of a training stage: rank 0 runs the stage, the others do what its trainer does.

Invariant: whatever rank 0 asks of its trainer, every rank asks of its own, in the same order and with the same
arguments; what only one may do (hold conversations, write the run folder) happens on rank 0 alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.bases import Trained


class Team:
    """Rank 0's trainer together with those of the other ranks. `team("update", samples)` calls all of them."""

    def __init__(self, ranks: Any) -> None:
        self.ranks = ranks
        self.trainer: Any = None
        self._within = False

    def open(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """Rank 0: make the trainer from `arguments`, on every rank; returns this rank's."""
        self.ranks.tell(arguments)
        return self._opened(make, arguments)

    def _opened(self, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with self._together():
            self.trainer = make(self.ranks, *arguments)
        return self.trainer

    def __call__(self, name: str, *arguments: Any) -> Any:
        self.ranks.tell((name, arguments))
        return self._do(name, arguments)

    def follow(self, make: Callable[..., Any]) -> None:
        """Another rank: make the trainer that rank 0 opens, then do as told until rank 0 is done."""
        arguments = self.ranks.hear()
        if arguments is None:
            return
        self._opened(make, arguments)
        while (told := self.ranks.hear()) is not None:
            self._do(*told)

    def dismiss(self) -> None:
        """Rank 0: let the others go. After a failure in the middle of a common step they wait for something else, and
        the launcher ends them."""
        if not self._within:
            self.ranks.tell(None)

    def _do(self, name: str, arguments: tuple[Any, ...]) -> Any:
        from muarl_cli.training.shard_files import read_shard, write_shard

        trainer = self.trainer
        own: dict[str, Callable[..., Any]] = {
            "write": lambda folder: write_shard(trainer, Path(folder)),
            "read": lambda folder, state: read_shard(trainer, Path(folder), state),
            "weights": trainer.optimiser.weights,
        }
        with self._together():
            return (own[name] if name in own else getattr(trainer, name))(*arguments)

    @contextmanager
    def _together(self) -> Iterator[None]:
        self._within = True
        yield
        self._within = False  # not in a `finally`: after a failure the ranks are no longer in step


def run_together(settings: Trained, make: Callable[..., Any], lead: Callable[[Team], dict[str, Any]]) -> dict[str, Any]:
    """Join what a launcher started: rank 0 runs `lead`, the others follow it with the trainer that `make` gives.

    Returns what `lead` does; nothing on the others. Raises `MuarlError` where there are several processes and nothing
    is divided among them.
    """
    from muarl_cli.training.ranks import open_ranks

    with open_ranks(lonely=bool(settings.shards.zero)) as ranks:
        if ranks.size > 1 and not settings.shards.zero:
            raise MuarlError(
                f"{ranks.size} processes were started, and nothing is divided among them",
                next_step="add shards.zero=2 (or 3, which divides the weights too), or leave --launcher out",
                code=ExitCode.CONFIG,
            )
        team = Team(ranks)
        if ranks.rank:
            team.follow(make)
            return {}
        try:
            return lead(team)
        finally:
            team.dismiss()


def optimiser_of(settings: Trained, ranks: Any) -> Any:
    """What makes the trainer's optimiser: plain AdamW, or DeepSpeed's division of it."""
    if not settings.shards.zero:
        from muarl_cli.training.optim import MasterAdamW

        return MasterAdamW
    from muarl_cli.training.sharded import ShardedAdamW, Shards

    return partial(ShardedAdamW, shards=Shards(settings.shards.zero, settings.shards.offload), ranks=ranks)


def prepared(model: Any, settings: Trained) -> Any:
    """The model as it is to be trained: with a fresh adapter where `lora` asks for one and it has none, and keeping
    only what `recompute` leaves."""
    if settings.lora.rank and not hasattr(model, "peft_config"):
        from muarl_cli.training.lora import LoraSpec, with_lora

        model = with_lora(
            model, LoraSpec(settings.lora.rank, settings.lora.alpha, settings.lora.targets), settings.seed
        )
    if settings.recompute:
        from muarl_cli.training.forward import recomputing

        recomputing(model)
    return model


def model_on(ranks: Any, own: Any, folder: str, dtype: str, settings: Trained) -> Any:
    """Rank 0's model `own`, or what another rank loads from the same folder."""
    if ranks.rank == 0:
        return own
    from muarl_cli.training.tiny_model import load_model

    return prepared(load_model(Path(folder), dtype), settings)
