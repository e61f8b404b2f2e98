"""One batch of turns, drawn to their ends: prefill what is new, then one token at a time for all rows at once.

Rows are ragged in what is cached, in what is fed and in when they end; finished rows leave the batch when enough of
them have piled up, which keeps the copying below the work it saves. Nothing per token happens in Python but the loop
itself. Invariant: a row's tokens depend on its own prompt and seed; its log-probabilities too, up to the rounding of
another batch shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.sampler import draw, uniforms

COMPACT_BELOW = 0.7
"""share of rows still drawing below which the finished ones are removed"""
PREFILL_TOKENS = 32_768
"""padded tokens fed at once: bounds the memory of a prefill"""
PADDING, PREFILL_LEAST = 1.1, 512
"""rows are fed together while padding adds a tenth at most, or so few tokens are fed that another pass costs more"""


@dataclass
class Row:
    """One session's part in a batch: what is cached of it, and what its prompt is."""

    prompt: tuple[int, ...]
    sampling: Sampling
    cached: int
    """tokens of the prompt whose keys and values are in `cache`; less than the prompt's length"""
    cache: Tensor | None
    """(layers, 2, kv_heads, cached, head_size)"""


@dataclass
class Drawn:
    """What a row got, and the cache of everything but its last token."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool
    cache: Tensor


class Workspace:
    """The cache tensor that all batches of an engine share, so that its pages are touched once."""

    def __init__(self, decoder: CachedDecoder, dtype: torch.dtype) -> None:
        self.decoder, self.dtype = decoder, dtype
        self._cache: Tensor | None = None

    def load(self, rows: Sequence[Row], length: int) -> Tensor:
        """A cache of at least (rows, length) with what each row has."""
        if self._cache is None or self._cache.shape[2] < len(rows) or self._cache.shape[4] < length:
            have = (0, 0) if self._cache is None else (self._cache.shape[2], self._cache.shape[4])
            self._cache = None  # freed before the larger one is made
            room = max(have[1], -(-length // 128) * 128)
            self._cache = self.decoder.new_cache(max(have[0], len(rows)), room, self.dtype)
        for index, row in enumerate(rows):
            if row.cache is not None and row.cached:
                self._cache[:, :, index, :, : row.cached] = row.cache[:, :, :, : row.cached]
        return self._cache


def generate(decoder: CachedDecoder, workspace: Workspace, rows: Sequence[Row]) -> list[Drawn]:
    """Draw a turn for every row. Rows share `top_p` and `stop_ids`; temperature, length and seed are each row's own."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].prompt) - rows[place].cached)
    drawn = _drawn(decoder, workspace, [rows[place] for place in order])
    return [result for _, result in sorted(zip(order, drawn, strict=True), key=itemgetter(0))]


def _drawn(decoder: CachedDecoder, workspace: Workspace, rows: Sequence[Row]) -> list[Drawn]:
    """The same for rows in the order of what is new in them, so that those fed together are alike."""
    device = decoder.device
    longest = max(row.sampling.max_tokens for row in rows)
    ragged = max(row.cached for row in rows) + max(len(row.prompt) - row.cached for row in rows)
    # prefill pads short rows behind their end, which may lie behind everything that will be drawn
    cache = workspace.load(rows, max(ragged, *(len(row.prompt) + row.sampling.max_tokens for row in rows)))
    hidden = prefill(decoder, cache, rows)
    count = len(rows)
    ids = torch.zeros(count, longest, dtype=torch.long, device=device)
    logprobs = torch.zeros(count, longest, dtype=torch.float32, device=device)
    finished_at = torch.zeros(count, dtype=torch.long, device=device)
    temperature = torch.tensor([row.sampling.temperature for row in rows], dtype=torch.float32, device=device)
    budget = torch.tensor([row.sampling.max_tokens for row in rows], device=device)
    places = torch.tensor([len(row.prompt) for row in rows], device=device)
    chance = uniforms([row.sampling.seed for row in rows], longest).to(device)
    stops = torch.tensor(rows[0].sampling.stop_ids, dtype=torch.long, device=device)
    stopped = torch.zeros(count, dtype=torch.bool, device=device)
    top_p = rows[0].sampling.top_p
    saved: dict[int, Tensor] = {}
    batch = torch.arange(count, device=device)  # which rows the cache's rows hold
    active = torch.ones(count, dtype=torch.bool, device=device)
    for step in range(longest):
        token, logprob = draw(decoder.logits(hidden), temperature[batch], top_p, chance[batch, step])
        ids[batch, step] = token
        logprobs[batch, step] = logprob
        ends = torch.isin(token, stops)
        over = active & (ends | (budget[batch] <= step + 1))
        stopped[batch[over & ends]] = True
        finished_at[batch[over]] = step + 1
        active &= ~over
        left = int(active.sum())
        if left == 0:
            break
        if left <= COMPACT_BELOW * len(batch):
            _save(saved, cache, batch, ~active, rows, finished_at)
            keep = active.nonzero().squeeze(-1)
            width = int(places[batch[keep]].max())
            cache[:, :, : len(keep), :, :width] = cache[:, :, keep, :, :width]
            batch, token, active = batch[keep], token[keep], active[keep]
        start = places[batch]
        hidden = decoder.forward(token[:, None], start, cache, int(start.max()) + 1)[:, -1]
        places[batch[active]] += 1
    _save(saved, cache, batch, torch.ones_like(active), rows, finished_at)
    return _results(ids, logprobs, stopped, finished_at, saved)


def prefill(decoder: CachedDecoder, cache: Tensor, rows: Sequence[Row]) -> Tensor:
    """Feed what is new of every prompt; returns the hidden state (B, width) of each last prompt token."""
    device = decoder.device
    fresh = [row.prompt[row.cached :] for row in rows]
    states: list[Tensor] = []
    first = 0
    while first < len(rows):
        last = _fed_together(fresh, first)
        part = fresh[first:last]
        longest = max(map(len, part))
        ids = torch.tensor([[*tokens, *([0] * (longest - len(tokens)))] for tokens in part], device=device)
        start = torch.tensor([row.cached for row in rows[first:last]], device=device)
        width = max(row.cached for row in rows[first:last]) + longest
        hidden = decoder.forward(ids, start, cache[:, :, first:last], width)
        ends = torch.tensor([len(tokens) - 1 for tokens in part], device=device)
        states.append(hidden[torch.arange(len(part), device=device), ends])
        first = last
    return torch.cat(states)


def _fed_together(fresh: Sequence[Sequence[int]], first: int) -> int:
    """Where the rows end that are fed in one pass with row `first`."""
    last, longest, real = first + 1, len(fresh[first]), len(fresh[first])
    while last < len(fresh):
        longest, real = max(longest, len(fresh[last])), real + len(fresh[last])
        padded = longest * (last + 1 - first)
        if padded > PREFILL_TOKENS or padded > max(PADDING * real, PREFILL_LEAST):
            break
        last += 1
    return last


def _save(
    saved: dict[int, Tensor], cache: Tensor, batch: Tensor, which: Tensor, rows: Sequence[Row], finished_at: Tensor
) -> None:
    """Copy the caches of rows that leave the batch: all their tokens but the last, which was never fed."""
    drawn = finished_at.tolist()
    for place, (row, leaves) in enumerate(zip(batch.tolist(), which.tolist(), strict=True)):
        if leaves:
            saved[row] = cache[:, :, place, :, : len(rows[row].prompt) + drawn[row] - 1].clone()


def _results(
    ids: Tensor, logprobs: Tensor, stopped: Tensor, finished_at: Tensor, saved: dict[int, Tensor]
) -> list[Drawn]:
    sizes, all_ids, all_logprobs, all_stopped = (t.tolist() for t in (finished_at, ids, logprobs, stopped))
    return [
        Drawn(all_ids[row][:size], all_logprobs[row][:size], all_stopped[row], saved[row])
        for row, size in enumerate(sizes)
    ]
