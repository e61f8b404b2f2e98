"""In which order rows are learned from, and which rows they were: pure functions of their arguments."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import torch

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.hashing import derive_seed


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` rows in an epoch: a permutation that depends on (count, seed, epoch) alone."""
    draw = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return [int(i) for i in torch.randperm(count, generator=draw)]


def rows_digest(rows: Sequence[TokenRow]) -> str:
    """A hash of what is trained on (ids and owners, in order)."""
    summary = hashlib.sha256()
    for row in rows:
        summary.update(array("q", [len(row.ids), *row.ids]).tobytes() + bytes(row.owners))
    return summary.hexdigest()[:16]
