"""Near duplicates among trajectories, by the words of both parties.

The similarity of two conversations is the Jaccard index of their word triples, J = |A n B| / |A u B|; candidates come
from MinHash bands, and each is measured exactly. Invariant: a pair above the limit is missed with a chance below 1e-4
(32 bands of 3), a pair below it is never taken for a duplicate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from muarl_cli.conversation.events import Event, Kind

BANDS, ROWS = 32, 3
_PRIME = 4_294_967_311
"""the least prime above 2^32"""
_TRIPLE = 3
Shingles = frozenset[int]


def shingles(events: Sequence[Event]) -> Shingles:
    """Hashes of the word triples of what was said."""
    words = re.findall(r"\w+", " ".join(e.text for e in events if e.kind is Kind.SAY).lower())
    triples = {" ".join(words[i : i + _TRIPLE]) for i in range(max(1, len(words) - _TRIPLE + 1))}
    return frozenset(map(_hash, triples))


@lru_cache(maxsize=1 << 17)
def _hash(triple: str) -> int:
    """Kept, since the conversations of one scenario are made of the same phrases."""
    return int.from_bytes(blake2b(triple.encode(), digest_size=4).digest(), "big")


def similarity(one: Shingles, other: Shingles) -> float:
    """The Jaccard index, 1 for two empty ones."""
    common = len(one & other)
    return common / (len(one) + len(other) - common) if one or other else 1.0


class Seen:
    """The conversations kept so far; asks whether a new one is too much like one of them."""

    def __init__(self, limit: float) -> None:
        import numpy as np

        rng = np.random.default_rng(17)
        self.limit = limit
        self._a: Any = rng.integers(1, 1 << 31, BANDS * ROWS, dtype=np.uint64)
        self._b: Any = rng.integers(0, 1 << 31, BANDS * ROWS, dtype=np.uint64)
        self._bands: dict[tuple[int, bytes], list[int]] = {}
        self._kept: list[tuple[str, Shingles]] = []

    def like(self, words: Shingles) -> tuple[str, float] | None:
        """(id, similarity) of the kept conversation that is most like this one, where that reaches the limit."""
        near = {place for key in self._keys(words) for place in self._bands.get(key, ())}
        best: tuple[float, str] | None = None
        for name, other in (self._kept[place] for place in near):
            few, many = sorted((len(words), len(other)))
            if few < (best[0] if best else self.limit) * many:  # J is few / many at most
                continue
            found = (similarity(words, other), name)
            if found[0] >= self.limit and (best is None or found > best):
                best = found
        return (best[1], best[0]) if best else None

    def keep(self, key: str, words: Shingles) -> None:
        """Add a conversation."""
        self._kept.append((key, words))
        for band in self._keys(words):
            self._bands.setdefault(band, []).append(len(self._kept) - 1)

    def _keys(self, words: Shingles) -> list[tuple[int, bytes]]:
        import numpy as np

        values = np.fromiter(words, dtype=np.uint64, count=len(words))
        # 32-bit values times 31-bit factors stay under 2^63, so the sums never wrap
        least = ((values[:, None] * self._a + self._b) % np.uint64(_PRIME)).min(axis=0)
        return [(band, least[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
