"""A running batch of turns: rows join it at any step and leave it when they are over; all draw one token a step.

Rows are ragged in what is cached, in what is fed and in when they end. A row whose turn is over is drawn along until it
is worth the while to let rows go: a copy is spared where several go at once, and their places are taken by the last
rows. Nothing per token happens in Python but the loop itself. Invariant: a row's tokens depend on its own prompt and
seed; its log-probabilities too, up to the rounding of another batch shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.sampler import draw, uniforms

GO_TOGETHER = 0.25
"""share of a batch whose turns are over at which these rows leave it"""
PATIENCE = 4
"""steps that a turn which is over waits for others to leave with, at most"""
PREFILL_TOKENS = 32_768
"""padded tokens fed at once: bounds the memory of a prefill"""
PADDING, PREFILL_LEAST = 1.1, 512
"""rows are fed together while padding adds a tenth at most, or so few tokens are fed that another pass costs more"""
_GROWTH = 1.25
"""by how much a cache grows at least that rows are drawing in, since they have to be copied then"""


@dataclass(eq=False)
class Row:
    """One session's part in a batch: what is cached of it, and what its prompt is."""

    prompt: tuple[int, ...]
    sampling: Sampling
    cached: int
    """tokens of the prompt whose keys and values are in `cache`; less than the prompt's length"""
    cache: Tensor | None
    """(layers, 2, kv_heads, cached, head_size)"""


@dataclass(frozen=True)
class Drawn:
    """What a row got, and the cache of everything but its last token."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool
    cache: Tensor


@dataclass(frozen=True)
class _State:
    """What the rows of a batch have drawn and may draw, written in place; the first dimension is the batch's."""

    ids: Tensor
    """(rows, most tokens of a turn + 1): a row that is over writes into the place behind its last token"""
    logprobs: Tensor
    chance: Tensor
    """uniform numbers, likewise"""
    stops: Tensor
    """(rows, most stop tokens), padded with a token that there is not"""
    temperature: Tensor
    top_p: Tensor
    budget: Tensor
    drawn: Tensor
    """tokens so far"""
    place: Tensor
    """tokens in the cache"""
    hidden: Tensor
    """(rows, width): the state from which the next token is drawn"""
    over: Tensor
    stopped: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], hidden: Tensor) -> Self:
        """Of rows that have just been fed their prompts."""
        device = hidden.device
        asked = [row.sampling for row in rows]
        longest, most_stops = max(s.max_tokens for s in asked), max(len(s.stop_ids) for s in asked)
        stops = [[*s.stop_ids, *([-1] * (most_stops - len(s.stop_ids)))] for s in asked]
        count, flags = len(rows), torch.zeros(len(rows), dtype=torch.bool, device=device)
        return cls(
            ids=torch.zeros(count, longest + 1, dtype=torch.long, device=device),
            logprobs=torch.zeros(count, longest + 1, dtype=torch.float32, device=device),
            chance=uniforms([s.seed for s in asked], longest + 1).to(device),
            stops=torch.tensor(stops, dtype=torch.long, device=device),
            temperature=torch.tensor([s.temperature for s in asked], dtype=torch.float32, device=device),
            top_p=torch.tensor([s.top_p for s in asked], dtype=torch.float32, device=device),
            budget=torch.tensor([s.max_tokens for s in asked], device=device),
            drawn=torch.zeros(count, dtype=torch.long, device=device),
            place=torch.tensor([len(row.prompt) for row in rows], device=device),
            hidden=hidden,
            over=flags,
            stopped=flags.clone(),
        )

    def take(self, rows: Sequence[int]) -> _State:
        """These rows, in this order."""
        index = torch.tensor(rows, dtype=torch.long, device=self.place.device)
        return replace(self, **{each.name: getattr(self, each.name)[index] for each in fields(self)})

    def with_more(self, more: _State) -> _State:
        return replace(
            self, **{f.name: _under(getattr(self, f.name), getattr(more, f.name), f.name) for f in fields(self)}
        )


class Batch:
    """The rows that are being drawn, at most `most`, and the cache tensor they share: row i stands at place i of it."""

    def __init__(self, decoder: CachedDecoder, dtype: torch.dtype, most: int) -> None:
        self.decoder, self.dtype, self.most = decoder, dtype, most
        self.rows: list[Row] = []
        self._cache = decoder.new_cache(0, 0, dtype)
        self._state: _State | None = None

    def join(self, rows: Sequence[Row]) -> None:
        """Feed what is new of these rows' prompts; they draw from now on."""
        news = sorted(rows, key=lambda row: len(row.prompt) - row.cached)  # those fed together are alike
        ragged = max(row.cached for row in news) + max(len(row.prompt) - row.cached for row in news)
        # prefill pads short rows behind their end, which may lie behind everything that will be drawn
        self._make_room(len(news), max(ragged, *(len(row.prompt) + row.sampling.max_tokens for row in news)))
        first = len(self.rows)
        for place, row in enumerate(news, first):
            if row.cache is not None and row.cached:
                self._cache[:, :, place, :, : row.cached] = row.cache[:, :, :, : row.cached]
        hidden = prefill(self.decoder, self._cache[:, :, first : first + len(news)], news)
        state = _State.of(news, hidden)
        self._state = state if self._state is None else self._state.with_more(state)
        self.rows += news

    def cut(self, rows: Sequence[Row]) -> None:
        """Nobody wants these rows' turns any more: they are over as they are."""
        for place, row in enumerate(self.rows):
            if row in rows and self._state is not None:
                self._state.over[place] = True

    def draw(self, hurry: Callable[[], bool]) -> list[tuple[Row, Drawn]]:
        """Draw until turns are over and their rows have left, or `hurry` says that others want to join; these rows."""
        assert self._state is not None
        waited = 0
        while True:
            self._draw_one_each(self._state)
            over = int(self._state.over.sum())
            waited += over > 0
            if over >= GO_TOGETHER * len(self.rows) or waited >= PATIENCE or hurry():
                break
            self._feed(self._state)
        left = self._let_go(self._state) if over else []
        if self.rows:
            self._feed(self._state)
        return left

    def _draw_one_each(self, state: _State) -> None:
        every = torch.arange(len(self.rows), device=state.place.device)
        logits = self.decoder.logits(state.hidden)
        token, logprob = draw(logits, state.temperature, state.top_p, state.chance[every, state.drawn])
        state.ids[every, state.drawn] = token
        state.logprobs[every, state.drawn] = logprob
        state.drawn.add_(~state.over)
        stops = (token[:, None] == state.stops).any(1) & ~state.over
        state.stopped.logical_or_(stops)
        state.over.logical_or_(stops | (state.drawn >= state.budget))

    def _feed(self, state: _State) -> None:
        """The newest token of each row, whose place in the cache is `state.place`."""
        token = state.ids.gather(1, state.drawn[:, None] - 1)
        state.hidden.copy_(self.decoder.forward(token, state.place, self._cache, int(state.place.max()) + 1)[:, -1])
        state.place.add_(~state.over)

    def _let_go(self, state: _State) -> list[tuple[Row, Drawn]]:
        """Take the rows out whose turns are over; the last ones move to their places."""
        ids, logprobs = state.ids.tolist(), state.logprobs.tolist()
        drawn, stopped, over = state.drawn.tolist(), state.stopped.tolist(), state.over.tolist()
        left = []
        for place, row in enumerate(self.rows):
            if over[place]:
                count = drawn[place]
                cache = self._cache[:, :, place, :, : len(row.prompt) + count - 1].clone()
                left.append((row, Drawn(ids[place][:count], logprobs[place][:count], stopped[place], cache)))
        stay = [place for place in range(len(over)) if not over[place]]
        free = [place for place in range(len(stay)) if over[place]]
        movers = [place for place in stay if place >= len(stay)]
        order = list(range(len(stay)))
        for hole, place in zip(free, movers, strict=True):
            width = len(self.rows[place].prompt) + drawn[place]
            self._cache[:, :, hole, :, :width] = self._cache[:, :, place, :, :width]
            order[hole] = place
        self.rows = [self.rows[place] for place in order]
        self._state = state.take(order) if order else None
        return left

    def _make_room(self, more: int, length: int) -> None:
        """A cache for so many more rows, and for rows so long; what running rows have in it stays."""
        rows, have = len(self.rows) + more, self._cache.shape
        if have[2] >= rows and have[4] >= length:
            return
        if rows > have[2] > 0:
            rows = min(self.most, max(rows, math.ceil(_GROWTH * have[2])))
        if length > have[4] > 0:
            length = min(self.decoder.max_length, max(length, math.ceil(_GROWTH * have[4])))
        kept = self._cache[:, :, : len(self.rows)]
        if not self.rows:  # freed before the larger one is made
            self._cache = kept = self.decoder.new_cache(0, 0, self.dtype)
        self._cache = self.decoder.new_cache(max(have[2], rows), max(have[4], length), self.dtype)
        self._cache[:, :, : kept.shape[2], :, : kept.shape[4]] = kept


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


def _under(upper: Tensor, lower: Tensor, name: str) -> Tensor:
    """One below the other, the narrower one padded on the right."""
    if upper.dim() == 2 and upper.shape[1] != lower.shape[1]:
        width, filler = max(upper.shape[1], lower.shape[1]), -1 if name == "stops" else 0
        upper, lower = (functional.pad(each, (0, width - each.shape[1]), value=filler) for each in (upper, lower))
    return torch.cat([upper, lower])
