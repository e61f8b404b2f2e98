"""Token rows to micro-batches: as many tokens at once as memory holds, padding included.

Invariant: how rows are split and in which order they come changes speed and memory, never what is learned: every row
appears exactly once, and sums over a step are divided by one count for the whole step. All orders are pure functions of
their arguments.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence

import torch

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.hashing import derive_seed
from muarl_cli.training.forward import Packed, agent_tokens, pack

_FILLED = 0.75
"""the least share of the longest row's length that a row in the same micro-batch has"""


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Indices into `lengths`, in micro-batches of like length, longest first, so that memory runs out at once or never.

    The padded size of each (rows x longest) is at most `budget` tokens; a row longer than that goes alone. No row is
    shorter than three quarters of the longest beside it: a second pass costs less than the padding.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        current = batches[-1] if batches else []
        longest = lengths[current[0]] if current else 0
        if current and longest * (len(current) + 1) <= budget and lengths[index] >= _FILLED * longest:
            current.append(index)
        else:
            batches.append([index])
    return [tuple(batch) for batch in batches]


def micro_batches(
    rows: Sequence[TokenRow], weights: Sequence[float], budget: int, device: torch.device | str
) -> Iterator[Packed]:
    """The rows that have agent tokens, packed within `budget` tokens each; a weight (an advantage) a row.

    Rows that carry no loss are left out: they would cost a pass and teach nothing.
    """
    if len(rows) != len(weights):
        raise ValueError(f"{len(rows)} rows but {len(weights)} weights")
    carrying = [(row, weight) for row, weight in zip(rows, weights, strict=True) if agent_tokens(row)]
    for batch in split_by_tokens([len(row.ids) for row, _ in carrying], budget):
        yield pack([carrying[i][0] for i in batch], [carrying[i][1] for i in batch], device)


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
