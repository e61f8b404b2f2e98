"""Which rows go together: batches by length, micro-batches by padded tokens.

Invariant: the order depends on (seed, epoch) alone, every row comes exactly once an epoch, and how a step is cut into
micro-batches changes memory and speed but not its result, since every loss is divided by the step's own token count.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from muarl_cli.hashing import derive_seed

WINDOW = 16
"""batches within which rows are sorted by length: enough to save the padding, too few to order the data"""


def epoch_batches(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of the rows of each batch of an epoch; similar lengths stand together, the batches in random order."""
    draw = random.Random(derive_seed(seed, "epoch", epoch))
    order = list(range(len(lengths)))
    draw.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch * WINDOW):
        window = sorted(order[start : start + batch * WINDOW], key=lambda index: lengths[index])
        batches += [window[at : at + batch] for at in range(0, len(window), batch)]
    draw.shuffle(batches)
    return batches


def micro_batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Cut 0..n-1 into groups of at most `most_tokens` padded tokens (a longer row stands alone), longest first, so that
    a lack of memory shows in the first micro-batch."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    group: list[int] = []
    for index in order:
        if group and lengths[group[0]] * (len(group) + 1) > most_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
