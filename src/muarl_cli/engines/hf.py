"""The in-process engine: a transformers model that may be the trainer's own, drawing turns for many sessions at once.

Each session's keys and values are kept across its turns, so a turn costs what is new in it. Whoever asks joins the
running batch, which is drawn in a thread of its own: new rows are fed, all draw until turns are over, those are
answered, and when the event loop has nothing left to do, that is when nobody is about to ask, it goes on. Invariant:
with parties that never wait for the outside world, the same seeds make the same batches and the same tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muarl_cli.beginnings import common_length
from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.generation import Batch, Drawn, Row
from muarl_cli.engines.prefixes import SharedPrefixes
from muarl_cli.engines.protocol import Capabilities, Finish, Generation, Sampling
from muarl_cli.teams import computed, let_go

QUIET_PASSES = 12
"""passes of the event loop without a new request after which drawing goes on: a session needs some between two turns"""


@dataclass
class _Session:
    """What is cached of one conversation."""

    ids: tuple[int, ...] = ()
    cache: Tensor | None = None


@dataclass
class _Request:
    session: str
    row: Row
    known: _Session
    answer: asyncio.Future[Generation] = field(repr=False)


class HFEngine:
    """An `Engine` over a causal language model of the Llama family.

    `model` is shared, never copied: after an optimiser step call `sync(None, version)`. `dtype` ("fp32" or "bf16") is
    the precision of the products, as in the trainer; `max_batch` bounds the rows of a batch. Raises `MuarlError` for
    architectures it does not know.
    """

    def __init__(self, model: Any, dtype: str, weight_version: str = "0", max_batch: int = 256) -> None:
        self.model = model
        self._decoder = CachedDecoder(model)
        self._autocast = torch.bfloat16 if dtype == "bf16" else None
        self._prefixes = SharedPrefixes(self._decoder)
        self._version, self._max_batch = weight_version, max_batch
        self._batch = self._new_batch()
        self._drawing: dict[Row, _Request] = {}
        """whose rows are in the batch"""
        self._sessions: dict[str, _Session] = {}
        self._waiting: list[_Request] = []
        self._flush: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="muarl-engine")
        self.stats = {"joins": 0, "rows": 0, "prompt_tokens": 0, "fed_tokens": 0, "sampled_tokens": 0}
        """counted since the engine was made"""
        self.seconds = 0.0
        """worked since the engine was made"""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(token_ids=True, logprobs=True, keeps_sessions=True, shares_weights=True, weight_sync=True)

    @property
    def weight_version(self) -> str:
        return self._version

    @property
    def context(self) -> int:
        """The longest conversation the model can hold, in tokens."""
        return self._decoder.max_length

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        if not prompt_ids or sampling.max_tokens < 1:
            raise ValueError("a turn needs a prompt and room for one token")
        if len(prompt_ids) + sampling.max_tokens > self.context:
            raise ValueError(f"{len(prompt_ids)} + {sampling.max_tokens} tokens exceed the model's {self.context}")
        loop = asyncio.get_running_loop()
        known = self._sessions.setdefault(session, _Session())
        request = _Request(session, Row(tuple(prompt_ids), sampling, 0, None), known, loop.create_future())
        self._waiting.append(request)
        if self._flush is None or self._flush.done() or self._flush.get_loop() is not loop:
            self._flush = loop.create_task(self._serve())
        return await request.answer

    def release(self, session: str) -> None:
        self._sessions.pop(session, None)

    async def sync(self, weights: Mapping[str, Any] | None, version: str) -> None:
        """Forget everything computed with the old weights; load new ones where they are given (by parameter name)."""
        if weights is not None:
            self.model.load_state_dict(dict(weights), strict=False)
        self._sessions.clear()
        self._prefixes.clear()
        self._version = version

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._sessions.clear()

    def _new_batch(self) -> Batch:
        return Batch(self._decoder, self._decoder.cache_dtype(self._autocast), self._max_batch)

    async def _serve(self) -> None:
        """Wait until the loop is quiet, let join who waits, draw until turns are over, and again while there is
        something."""
        loop = asyncio.get_running_loop()
        while self._waiting or self._batch.rows:
            await self._quiet()
            joining = self._next_to_join()
            if not joining and not self._batch.rows:
                continue
            let_go()  # of what this thread has trained or loaded with
            try:
                answers = await loop.run_in_executor(self._thread, computed, self._draw, self._batch, joining)
            except BaseException as error:
                self._fail(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for request, answer in answers:
                if not request.answer.done():  # its conversation may have been cancelled meanwhile
                    request.answer.set_result(answer)

    def _fail(self, error: BaseException) -> None:
        """Whoever is being drawn hears of it; what it left is not used again."""
        failed, self._drawing = self._drawing, {}
        self._batch = self._new_batch()
        for request in failed.values():
            if not request.answer.done():
                request.answer.set_exception(error if isinstance(error, Exception) else RuntimeError("stopped"))

    async def _quiet(self) -> None:
        seen, still = len(self._waiting), 0
        while still < QUIET_PASSES:
            await asyncio.sleep(0)
            still = still + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)

    def _next_to_join(self) -> list[_Request]:
        """As many as there is room for, ordered by session so that the order of arrival does not matter."""
        alive = [request for request in self._waiting if not request.answer.done()]
        alive.sort(key=lambda request: request.session)
        room = self._max_batch - len(self._batch.rows)
        self._waiting = alive[room:]
        joining = alive[:room]
        self._drawing |= {request.row: request for request in joining}
        return joining

    def _draw(self, batch: Batch, joining: Sequence[_Request]) -> list[tuple[_Request, Generation]]:
        """Runs in the engine's thread; who is done, with what was drawn."""
        begun = time.monotonic()
        compute = torch.autocast(self._decoder.device.type, self._autocast) if self._autocast else nullcontext()
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), compute:
                batch.cut([row for row, request in self._drawing.items() if request.answer.done()])
                if joining:
                    batch.join(self._rows(joining))
                drawn = batch.draw(lambda: self._hurried(batch))
        finally:
            self.model.train(was_training)
        answers = [self._keep(row, result) for row, result in drawn if row in self._drawing]
        self.seconds += time.monotonic() - begun
        return answers

    def _hurried(self, batch: Batch) -> bool:
        """Somebody waits who could join. Parties that never wait for the outside world ask while nothing is drawn."""
        return bool(self._waiting) and len(batch.rows) < self._max_batch

    def _rows(self, joining: Sequence[_Request]) -> list[Row]:
        rows = [request.row for request in joining]
        for request in joining:
            known = request.known
            request.row.cached = min(common_length(known.ids, request.row.prompt), len(request.row.prompt) - 1)
            request.row.cache = known.cache
        self._prefixes.fill([row for row in rows if row.cached == 0], self._batch.dtype)
        self.stats["joins"] += 1
        self.stats["rows"] += len(rows)
        self.stats["prompt_tokens"] += sum(len(row.prompt) for row in rows)
        self.stats["fed_tokens"] += sum(len(row.prompt) - row.cached for row in rows)
        return rows

    def _keep(self, row: Row, drawn: Drawn) -> tuple[_Request, Generation]:
        request = self._drawing.pop(row)
        request.known.ids = row.prompt + tuple(drawn.ids[:-1])
        request.known.cache = drawn.cache
        self.stats["sampled_tokens"] += len(drawn.ids)
        finish = Finish.STOP if drawn.stopped else Finish.LENGTH
        return request, Generation(tuple(drawn.ids), tuple(drawn.logprobs), finish, self._version)
