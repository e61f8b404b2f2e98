"""Prompts that begin alike are prefilled once: the system turn of a scenario, above all.

The keys and values of the longest beginning that new sessions share are computed in one row and copied to each of
them. The few last used beginnings are kept, so that sessions opened later profit as well. Dropping one changes speed,
never a result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from muarl_cli.beginnings import common_length
from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.generation import Row, prefill

WORTH_SHARING = 32
"""tokens: below this, a copy costs what it saves"""
KEPT = 16


class SharedPrefixes:
    """Beginnings by their first tokens, most recently used last."""

    def __init__(self, decoder: CachedDecoder) -> None:
        self._decoder = decoder
        self._known: dict[tuple[int, ...], tuple[tuple[int, ...], Tensor]] = {}

    def clear(self) -> None:
        self._known.clear()

    def fill(self, rows: Sequence[Row], dtype: torch.dtype) -> None:
        """Give rows without a cache the keys and values of a shared beginning, where there is one."""
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            if len(row.prompt) > WORTH_SHARING:
                groups.setdefault(row.prompt[:WORTH_SHARING], []).append(row)
        for key, group in groups.items():
            known = self._known.pop(key, None)
            if known is None:
                if len(group) < 2:
                    continue
                known = self._compute(group, dtype)
            self._known[key] = known
            for row in group:
                row.cached = min(common_length(known[0], row.prompt), len(row.prompt) - 1)
                row.cache = known[1]
        for key in list(self._known)[:-KEPT]:
            del self._known[key]

    def _compute(self, group: Sequence[Row], dtype: torch.dtype) -> tuple[tuple[int, ...], Tensor]:
        first = group[0].prompt
        shared = min(common_length(first, row.prompt) for row in group)
        beginning = first[:shared]
        cache = self._decoder.new_cache(1, shared, dtype)
        prefill(self._decoder, cache, [Row(beginning, group[0].sampling, 0, None)])
        return beginning, cache[:, :, 0]
