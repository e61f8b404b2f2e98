"""Attention on a packed line: each span sees its root and, causally, itself.

Registered with transformers as an attention implementation of its own, so that any model that takes one runs on packed
lines unchanged: layers, gradient checkpointing (which recomputes a layer, roots and all), adapters and sharded
parameters know nothing of it. Invariant: while `packed_attention` is not entered, the model is as it was; the engine
that shares the module generates with what it had.

Long spans are taken in blocks of queries, so that a mask has at most `BLOCK` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.packing import Span

NAME = "muarl_packed"
BLOCK = 1024
"""queries a call, where a mask is needed"""
_UNKNOWN = ("softcap", "s_aux", "head_mask")
"""arguments of other attention kinds, which would silently change the result if they were left out"""


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    spans: Sequence[Span] = (),
    **others: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, K, T, D) to (1, T, H, D)."""
    odd = [name for name in _UNKNOWN if others.get(name) is not None]
    if odd or not spans:
        raise ValueError(f"packed attention cannot do {', '.join(odd) or 'a call without spans'}")
    window = sliding_window or 0

    def one(part: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return scaled_dot_product_attention(
            part, keys, values, mask, dropout, mask is None, scale=scaling, enable_gqa=True
        )

    # Spans tile the line. Cut at once and each root once, the gradients of all parts are joined in one copy; a slice a
    # span would cost a line of zeros each.
    sizes = [span.end - span.start for span in spans]
    roots: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    parts = []
    for span, size, own, own_key, own_value in zip(
        spans, sizes, *(each.split(sizes, 2) for each in (query, key, value)), strict=True
    ):
        length = span.root_end - span.root_start
        if not length and not (window and size > window):
            parts.append(one(own, own_key, own_value, None))
            continue
        at = (span.root_start, span.root_end)
        if length and at not in roots:
            roots[at] = (key[:, :, slice(*at)], value[:, :, slice(*at)])
        keys = torch.cat((roots[at][0], own_key), 2) if length else own_key
        values = torch.cat((roots[at][1], own_value), 2) if length else own_value
        for start in range(0, size, BLOCK):
            stop = min(size, start + BLOCK)
            mask = _mask(stop - start, length + stop, window, query.device)
            parts.append(one(own[:, :, start:stop], keys[:, :, : length + stop], values[:, :, : length + stop], mask))
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


@lru_cache(maxsize=256)
def _mask(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """bool (queries, keys), True where a query may look; the last query stands at the last key."""
    ahead = keys - queries
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(ahead)
    return seen.triu(ahead - window + 1) if window else seen


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """The model's decoder attends by spans inside: call it with `spans=`. Raises `MuarlError` for one that cannot.

    With gradient checkpointing the backward pass computes layers again, so it must lie inside too. May be nested.
    """
    decoder = plain_model(model).get_decoder()
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not getattr(decoder, "_supports_attention_backend", False):
        raise MuarlError(
            f"{type(decoder).__name__} cannot be trained on packed rows",
            why="its attention cannot be exchanged in this version of transformers",
            next_step="use a model of a current family such as Qwen3 or Llama",
            code=ExitCode.CONFIG,
        )
    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
    before = decoder.config._attn_implementation
    decoder.config._attn_implementation = NAME
    try:
        yield
    finally:
        decoder.config._attn_implementation = before


def plain_model(model: Any) -> Any:
    """The model itself: adapters sit inside its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _no_mask(*arguments: Any, **named: Any) -> None:
    """The spans say all that a mask would."""
