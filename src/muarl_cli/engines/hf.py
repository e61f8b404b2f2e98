"""The in-process engine: a transformers model that may be the trainer's own, drawing turns for many sessions at once.

Each session's keys and values are kept across its turns, so a turn costs what is new in it. Requests are gathered
until the event loop has nothing left to do, that is until nobody is about to ask, and drawn as one batch in a thread
of their own. Invariant: with parties that never wait for the outside world, the same seeds make the same batches and
the same tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from muarl_cli.beginnings import common_length
from muarl_cli.engines.cached_decoder import CachedDecoder
from muarl_cli.engines.generation import Drawn, Row, Workspace, generate
from muarl_cli.engines.prefixes import SharedPrefixes
from muarl_cli.engines.protocol import Capabilities, Finish, Generation, Sampling
from muarl_cli.teams import computed, let_go

QUIET_PASSES = 12
"""passes of the event loop without a new request after which a batch starts: a session needs a few between two turns"""


@dataclass
class _Session:
    """What is cached of one conversation."""

    ids: tuple[int, ...] = ()
    cache: Tensor | None = None


@dataclass
class _Request:
    session: str
    prompt: tuple[int, ...]
    sampling: Sampling
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
        self._workspace = Workspace(self._decoder, self._decoder.cache_dtype(self._autocast))
        self._prefixes = SharedPrefixes(self._decoder)
        self._version = weight_version
        self._max_batch = max_batch
        self._sessions: dict[str, _Session] = {}
        self._waiting: list[_Request] = []
        self._flush: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="muarl-engine")
        self.stats = {"batches": 0, "rows": 0, "prompt_tokens": 0, "fed_tokens": 0, "sampled_tokens": 0}
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
        request = _Request(session, tuple(prompt_ids), sampling, known, loop.create_future())
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

    async def _serve(self) -> None:
        """Wait until the loop is quiet, draw everything that waits, and again while there is something."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._quiet()
            batch, self._waiting = self._next_batch()
            if not batch:
                continue
            try:
                let_go()  # what this thread has trained or loaded with
                answers = await loop.run_in_executor(self._thread, computed, self._draw, batch)
            except BaseException as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error if isinstance(error, Exception) else RuntimeError("stopped"))
                if not isinstance(error, Exception):
                    raise
                continue
            for request, answer in zip(batch, answers, strict=True):
                if not request.answer.done():  # its conversation may have been cancelled meanwhile
                    request.answer.set_result(answer)

    async def _quiet(self) -> None:
        seen, still = len(self._waiting), 0
        while still < QUIET_PASSES:
            await asyncio.sleep(0)
            still = still + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)

    def _next_batch(self) -> tuple[list[_Request], list[_Request]]:
        """The next batch (one kind of sampling, ordered by session so that the order of arrival does not matter), and
        what is left."""
        alive = [request for request in self._waiting if not request.answer.done()]
        alive.sort(key=lambda request: (request.sampling.top_p, request.sampling.stop_ids, request.session))
        groups = [list(g) for _, g in groupby(alive, lambda r: (r.sampling.top_p, r.sampling.stop_ids))]
        first = groups[0][: self._max_batch] if groups else []
        taken = {id(request) for request in first}
        return first, [request for request in alive if id(request) not in taken]

    def _draw(self, batch: Sequence[_Request]) -> list[Generation]:
        """Runs in the engine's thread."""
        begun = time.monotonic()
        compute = torch.autocast(self._decoder.device.type, self._autocast) if self._autocast else nullcontext()
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), compute:
                rows = self._rows(batch)
                drawn = generate(self._decoder, self._workspace, rows)
        finally:
            self.model.train(was_training)
        self._count(rows, drawn)
        answers = [self._keep(request, result) for request, result in zip(batch, drawn, strict=True)]
        self.seconds += time.monotonic() - begun
        return answers

    def _rows(self, batch: Sequence[_Request]) -> list[Row]:
        rows = []
        for request in batch:
            known = request.known
            cached = min(common_length(known.ids, request.prompt), len(request.prompt) - 1)
            rows.append(Row(request.prompt, request.sampling, cached, known.cache))
        self._prefixes.fill([row for row in rows if row.cached == 0], self._workspace.dtype)
        return rows

    def _keep(self, request: _Request, drawn: Drawn) -> Generation:
        request.known.ids = request.prompt + tuple(drawn.ids[:-1])
        request.known.cache = drawn.cache
        finish = Finish.STOP if drawn.stopped else Finish.LENGTH
        return Generation(tuple(drawn.ids), tuple(drawn.logprobs), finish, self._version)

    def _count(self, rows: Sequence[Row], drawn: Sequence[Drawn]) -> None:
        self.stats["batches"] += 1
        self.stats["rows"] += len(rows)
        self.stats["prompt_tokens"] += sum(len(row.prompt) for row in rows)
        self.stats["fed_tokens"] += sum(len(row.prompt) - row.cached for row in rows)
        self.stats["sampled_tokens"] += sum(len(result.ids) for result in drawn)
