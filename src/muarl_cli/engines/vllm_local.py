"""Turns drawn by vLLM in this process, for an environment that has vLLM: no server, no port, the same exactness.

vLLM's asynchronous engine lives on an event loop and a thread of its own, so that turns may be asked for from any loop;
its model runs in a child process that ends with this one. What vLLM is told, how weights come to it, and the check of
what it computes afterwards are those of the server engine (`vllm_terms.py`, `exchange.py`, `vllm_worker.py`,
`canary.py`). Invariant: a turn that nobody waits for any more is taken out of vLLM's batch.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import Canary
from muarl_cli.engines.exchange import Exchange, Writer
from muarl_cli.engines.protocol import Capabilities, Generation, Sampling
from muarl_cli.engines.vllm_terms import ADAPTER, CANARY, ENVIRONMENT, OPTIONS, room_for, sampling_options, turn_of
from muarl_cli.errors import ExitCode, MuarlError

T = TypeVar("T")
HERE = "vLLM in this process"
_ENVIRONMENT = {
    **ENVIRONMENT,
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is a stage's own
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
}


class VllmLocal:
    """An `Engine` over vLLM in this process, serving the model in `folder`.

    `dtype` is "fp32" or "bf16"; `max_context` the longest conversation in tokens; `adapter_rank` the largest rank of
    adapters that will be served (0 = none); `adapter` the folder of one that is served from the start. `options` are
    arguments of vLLM's `AsyncEngineArgs` (gpu_memory_utilization, tensor_parallel_size, ...). `exchange` is where
    weights pass, by default a temporary folder. Raises `MuarlError` where vLLM is not installed or does not start.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        *,
        dtype: str,
        max_context: int,
        adapter_rank: int = 0,
        adapter: Path | None = None,
        options: Mapping[str, Any] | None = None,
        exchange: Path | None = None,
    ) -> None:
        for name, value in _ENVIRONMENT.items():  # vLLM reads them when it is imported
            os.environ.setdefault(name, value)
        vllm = _vllm()
        arguments = {
            "model": str(folder),
            "skip_tokenizer_init": True,  # token ids in, token ids out
            "dtype": {"fp32": "float32", "bf16": "bfloat16"}[dtype],
            "max_model_len": max_context,
            "disable_log_stats": True,
            **OPTIONS,
            **({"enable_lora": True, "max_lora_rank": room_for(adapter_rank)} if adapter_rank else {}),
            **(options or {}),
        }
        self.context = int(arguments["max_model_len"])
        """tokens that a conversation may have"""
        self._version = version
        self._numbers = count(1)
        self._exchange = Exchange(exchange)
        self._adapter: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="muarl-vllm", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self._llm = self._now(_start(vllm, arguments))
            if adapter is not None:
                self._now(self._serve(adapter))
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(token_ids=True, logprobs=True, keeps_sessions=True, shares_weights=False, weight_sync=True)

    @property
    def weight_version(self) -> str:
        return self._version

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        """Draw one turn; the prefix cache finds what it knows of the conversation by its tokens. Raises `InfraFault`
        where vLLM fails."""
        if not prompt_ids or sampling.max_tokens < 1:
            raise ValueError("a turn needs a prompt and room for one token")
        version = self._version
        output = await self._there(self._ask(prompt_ids, sampling_options(sampling)))
        drawn = output.outputs[0]
        ids = tuple(drawn.token_ids)
        logprobs = [row[token].logprob for row, token in zip(drawn.logprobs, ids, strict=True)]
        return turn_of(ids, logprobs, sampling, version)

    def release(self, session: str) -> None:
        """Nothing: vLLM lets the least recently used of what it has cached go when it needs the room."""

    async def sync(self, weights: Mapping[str, Any] | None, version: str) -> None:
        """Name what `share` loaded last; nothing is shared in memory, so `weights` must be None."""
        if weights is not None:
            raise ValueError("vLLM takes weights as files: write them with share()")
        self._version = version

    async def share(self, write: Writer, version: str, canary: Canary, adapter: bool) -> None:
        """Give vLLM new weights and check what it computes with them. Raises `MuarlError` on any mismatch."""
        async with self._exchange.delivery(write, version, adapter) as folder:
            await self._there(self._serve(folder) if adapter else self._load(folder, version))
            await self.check(canary)
        self._version = version

    async def check(self, canary: Canary) -> None:
        """Compare what vLLM computes on the canary's prompt with what the trainer does."""
        canary.compare(await self._computed(canary), HERE)

    async def distances(self, canary: Canary) -> dict[str, float]:
        """How far what vLLM computes is from the canary; by the name of this engine, as servers have addresses."""
        return {HERE: canary.distance(await self._computed(canary))}

    async def _computed(self, canary: Canary) -> list[float]:
        rows = (await self._there(self._ask(canary.ids, CANARY))).prompt_logprobs
        return [row[token].logprob for row, token in zip(rows[1:], canary.ids[1:], strict=True)]

    def close(self) -> None:
        """End vLLM and its child process."""
        if self._closed:
            return
        self._closed = True
        if hasattr(self, "_llm"):
            self._now(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._exchange.close()

    async def _ask(self, prompt_ids: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        """One request, to its end; on vLLM's loop. Cancelled, it is aborted there (vLLM's generator sees to it)."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        parameters = SamplingParams(**options, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt = TokensPrompt(prompt_token_ids=list(prompt_ids))
        asked = self._llm.generate(prompt, parameters, str(next(self._numbers)), lora_request=self._adapter)
        try:
            async for output in asked:
                return output
        except (EngineDeadError, EngineGenerateError) as error:
            raise InfraFault(f"vLLM: {type(error).__name__}: {error}") from error
        finally:
            await asked.aclose()
        raise InfraFault("vLLM ended a turn without an answer")

    async def _load(self, folder: Path, version: str) -> None:
        """Full weights. Requests that run meanwhile wait."""
        await self._llm.pause_generation(mode="keep")
        try:
            told = await self._llm.collective_rpc("muarl_load", kwargs={"folder": str(folder), "version": version})
            await self._llm.reset_prefix_cache()
        finally:
            await self._llm.resume_generation()
        if set(told) != {version}:
            raise MuarlError(
                "vLLM did not say that it has the new weights",
                why=f"its workers answered {told!r}",
                code=ExitCode.UNAVAILABLE,
            )
        self._adapter = None

    async def _serve(self, folder: Path) -> None:
        """An adapter, under a name and a number of its own."""
        from vllm.lora.request import LoRARequest

        number = next(self._numbers)
        request = LoRARequest(f"{ADAPTER}-{number}", number, str(folder))
        await self._llm.add_lora(request)
        if self._adapter is not None:
            await self._llm.remove_lora(self._adapter.lora_int_id)
        self._adapter = request

    async def _end(self) -> None:
        self._llm.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, done on vLLM's loop; cancelled where the caller is."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _now(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _vllm() -> Any:
    """The package. Raises `MuarlError` where it cannot be imported."""
    try:
        import vllm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit is a RuntimeError
        raise MuarlError(
            "vLLM cannot be imported in this environment",
            where="--engine vllm",
            why=str(error),
            next_step="pip install 'muarl-cli[vllm]' here; or serve the model from another environment: "
            "muarl serve MODEL --python PYTHON, then --engine http://127.0.0.1:8000/v1",
            code=ExitCode.MISSING_INPUT,
        ) from error
    return vllm


async def _start(vllm: Any, arguments: Mapping[str, Any]) -> Any:
    """vLLM's engine, on the loop that this runs on."""
    try:
        return vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**arguments))
    except Exception as error:  # a wrong option, a model it does not know, no memory: whatever vLLM says
        raise MuarlError(
            "vLLM does not start",
            where="--engine vllm",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            next_step="read vLLM's own lines above; its options go behind a question mark: "
            "--engine 'vllm?gpu_memory_utilization=0.5&tensor_parallel_size=2'",
            code=ExitCode.CONFIG,
        ) from error
