"""The processes that train together: their number, and how they tell each other things.

Rank 0 leads: it holds the conversations, writes the run folder, and tells the others what to do next. Invariant: every
rank calls the same collective operations in the same order; with one process all of them are free.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from muarl_cli.training.launched import is_rank

PATIENCE = timedelta(days=7)
"""how long a rank waits to be told what is next: conversations with real people may take their time"""


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. Its own messages go over gloo in main memory, whatever the weights travel by."""

    rank: int
    size: int
    group: Any = None

    def tell(self, message: Any) -> None:
        """Rank 0: say something to all others, which wait in `hear`."""
        if self.size > 1:
            dist.broadcast_object_list([message], src=0, group=self.group)

    def hear(self) -> Any:
        """Another rank: what rank 0 says next."""
        heard = [None]
        dist.broadcast_object_list(heard, src=0, group=self.group)
        return heard[0]

    def gather(self, value: Any) -> list[Any]:
        """What every rank gave, by rank, to every rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def totals(self, values: Mapping[str, float], largest: Collection[str] = ()) -> dict[str, float]:
        """The sum over all ranks of each value, or its largest; the same numbers on every rank."""
        if self.size == 1:
            return dict(values)
        found: dict[str, float] = {}
        for names, operation in ((set(values) - set(largest), dist.ReduceOp.SUM), (set(largest), dist.ReduceOp.MAX)):
            ordered = sorted(names & set(values))
            if ordered:
                numbers = torch.tensor([values[name] for name in ordered], dtype=torch.float64)
                dist.all_reduce(numbers, op=operation, group=self.group)
                found |= dict(zip(ordered, numbers.tolist(), strict=True))
        return {name: found[name] for name in values}


ALONE = Ranks(0, 1)


@contextmanager
def open_ranks(lonely: bool = False) -> Iterator[Ranks]:
    """Join the others that the launcher started; alone without a launcher, with a process group if `lonely`."""
    if not is_rank():
        if not lonely:
            yield ALONE
            return
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
        dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)
    else:
        _end_with_parent()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(_backend())
    try:
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Ranks(dist.get_rank(), dist.get_world_size(), group)
    finally:
        dist.destroy_process_group()


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def _end_with_parent() -> None:
    """A rank whose launcher was killed would train on alone and keep the run folder locked: end with it (on Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
