"""Drawing tokens: one uniform number a token, counted, never remembered.

The number for token n of a turn is a hash of (the turn's seed, n), so a row's draws do not depend on who else is in
the batch, on batch order or on what was drawn before. The token is found by inverting the cumulative distribution.
Invariant: the log-probability returned is that of the distribution drawn from, in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

_STEP = numpy.uint64(0x9E3779B97F4A7C15)
_MIX = (numpy.uint64(0xBF58476D1CE4E5B9), numpy.uint64(0x94D049BB133111EB))


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Numbers (len(seeds), count) in [0, 1), fp64; row i depends on seeds[i] alone. SplitMix64 (Steele et al. 2014)."""
    seed = numpy.array([s & 0xFFFFFFFFFFFFFFFF for s in seeds], dtype=numpy.uint64)[:, None]
    with numpy.errstate(over="ignore"):
        state = _mixed(seed) + _STEP * numpy.arange(1, count + 1, dtype=numpy.uint64)[None]
        bits = _mixed(state)
    return torch.from_numpy((bits >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53)


def _mixed(state: numpy.ndarray) -> numpy.ndarray:
    state = (state ^ (state >> numpy.uint64(30))) * _MIX[0]
    state = (state ^ (state >> numpy.uint64(27))) * _MIX[1]
    return state ^ (state >> numpy.uint64(31))


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row from `logits` (B, V) fp32; the rest, and the (ids, logprobs) found, are (B,).

    Rows with temperature 0 take the likeliest token and report the model's own log-probability.
    """
    greedy = temperature == 0
    logprobs = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], dim=-1)
    cut = (top_p < 1.0) & ~greedy
    if bool(cut.any()):
        logprobs = torch.where(cut[:, None], _nucleus(logprobs, top_p), logprobs)
    ids = _invert(logprobs, uniform)
    ids = torch.where(greedy, logits.argmax(-1), ids)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def _invert(logprobs: Tensor, uniform: Tensor) -> Tensor:
    # Many small probabilities need more than the 24 bits of fp32 to add up.
    precise = torch.float64 if logprobs.shape[-1] > 4096 else torch.float32
    cumulated = logprobs.exp().to(precise).cumsum(-1)
    # The product may round up to the total; the largest number below it still lies inside the last token's share.
    total = cumulated[:, -1]
    target = torch.minimum(uniform.to(precise) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, target[:, None], right=True).squeeze(-1)


def _nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """The smallest set of likeliest tokens that holds `top_p` of the mass, normalised; the rest is -inf."""
    ordered, order = logprobs.sort(dim=-1, descending=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()
    dropped = torch.zeros_like(mass_before, dtype=torch.bool).scatter(-1, order, mass_before >= top_p[:, None])
    return torch.log_softmax(logprobs.masked_fill(dropped, float("-inf")), dim=-1)
