"""A real local HTTP server with the routes of a vLLM server that muarl uses, over the in-process engine.

Token ids in, token ids and log-probabilities out, weights replaced while it runs. While it is paused no turn begins; a
pause waits for those that have begun. A turn whose client has gone is let go. `resets` are the query strings of resets
of the prefix cache, of which it has none. `stale_head` makes it keep its old output layer on a full update, as vLLM on
a CPU does with tied embeddings; `refuse` answers control calls with a 500. `context` is what vLLM calls max_model_len.
`after` puts turns in an order that a test chooses, whoever is faster: the turn with a seed is drawn when all that it
names have happened, each the seed of a turn that was drawn or the version of weights that were loaded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from aiohttp import web

from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.vllm_server import VllmServer, open_servers
from muarl_cli.engines.wire import RetryPolicy, Wire

ROUTES = (
    "/v1/completions",
    "/v1/models",
    "/version",
    "/collective_rpc",
    "/pause",
    "/resume",
    "/reset_prefix_cache",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
)
ONCE = RetryPolicy(attempts=1, request_seconds=20)
GREEDY = Sampling(0.0, 1.0, 2, (3,), 1)
"""a short turn, the likeliest one"""


async def connect(*servers: VllmLikeServer) -> VllmServer:
    """An engine over these servers, which asks each only once."""
    return await open_servers([Wire(resolve_address(server.url), retry=ONCE) for server in servers], "0")


class VllmLikeServer:
    """Use as a context manager; `url` is its base URL."""

    def __init__(
        self,
        model: Any,
        *,
        routes: tuple[str, ...] = ROUTES,
        stale_head: bool = False,
        port: int = 0,
        context: int | None = None,
    ) -> None:
        self.model, self.routes, self.stale_head, self.context = model, routes, stale_head, context
        self.refuse = False
        self.calls: list[str] = []
        self.resets: list[str] = []
        self.completions = 0
        self.loading: list[int] = []
        """turns under way whenever weights were replaced: 0 where it was paused before"""
        self.beside: list[int] = []
        """turns that were not answered yet whenever a prompt's log-probabilities were asked for: where vLLM takes
        adapters, it dies of any"""
        self._going, self._drawing, self._open = asyncio.Event(), 0, 0
        self._going.set()
        self._still = asyncio.Event()
        self._still.set()
        self.after: Mapping[int, frozenset[int | str]] = {}
        self.happened: set[int | str] = set()
        self._news = asyncio.Condition()
        self._engine = HFEngine(model, "fp32")
        self.adapters: dict[str, Any] = {}
        """the base with each adapter that is loaded, by name"""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> VllmLikeServer:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Stop at once; connections are cut."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        application = web.Application(middlewares=[self._watch])
        application.router.add_get("/openapi.json", self._document)
        application.router.add_get("/version", self._version)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/completions", self._complete)
        application.router.add_post("/pause", self._pause)
        application.router.add_post("/resume", self._resume)
        application.router.add_post("/reset_prefix_cache", self._reset)
        application.router.add_post("/collective_rpc", self._load)
        application.router.add_post("/v1/load_lora_adapter", self._adapter)
        application.router.add_post("/v1/unload_lora_adapter", self._no_adapter)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append(request.path)
        if request.path not in (*self.routes, "/openapi.json"):
            return web.json_response({"error": "no such route"}, status=404)
        if self.refuse and request.method == "POST" and request.path != "/v1/completions":
            return web.json_response({"error": "out of order"}, status=500)
        response: web.StreamResponse = await handler(request)
        return response

    async def _document(self, request: web.Request) -> web.Response:
        return web.json_response({"paths": {path: {} for path in self.routes}})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0+fake"})

    async def _models(self, request: web.Request) -> web.Response:
        told = {} if self.context is None else {"max_model_len": self.context}
        return web.json_response({"data": [{"id": name, **told} for name in ("policy", *self.adapters)]})

    async def _pause(self, request: web.Request) -> web.Response:
        self._going.clear()
        await self._still.wait()
        return web.Response()

    async def _resume(self, request: web.Request) -> web.Response:
        self._going.set()
        return web.Response()

    async def _reset(self, request: web.Request) -> web.Response:
        self.resets.append(request.query_string)
        return web.Response()

    async def _complete(self, request: web.Request) -> web.Response:
        self.completions += 1
        body = await request.json()
        ids = tuple(body["prompt"])
        if self.context is not None and len(ids) + body["max_tokens"] > self.context:
            why = f"This model's maximum context length is {self.context} tokens"
            return web.json_response({"error": {"message": why}}, status=400)
        if body["model"] not in ("policy", *self.adapters):
            return web.json_response({"error": "no such model"}, status=404)
        model = self.adapters.get(body["model"], self.model)
        if body.get("prompt_logprobs") is not None:
            self.beside.append(self._open)
            with torch.no_grad():
                everything = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].float(), -1)
            rows: list[Any] = [None]
            rows += [{str(i): {"logprob": float(everything[n, i])}} for n, i in enumerate(ids[1:])]
            return web.json_response({"choices": [{"prompt_logprobs": rows, "token_ids": [0]}]})
        sampling = Sampling(
            body["temperature"], body["top_p"], body["max_tokens"], tuple(body["stop_token_ids"]), body["seed"]
        )
        self._open += 1
        try:
            return await self._turn(ids, sampling, str(self.completions), body["model"])
        finally:
            self._open -= 1

    async def _turn(self, ids: tuple[int, ...], sampling: Sampling, session: str, name: str) -> web.Response:
        async with self._news:
            await self._news.wait_for(lambda: self.happened >= self.after.get(sampling.seed, frozenset()))
        await self._going.wait()
        adapter = self.adapters.get(name)
        engine = self._engine if adapter is None else HFEngine(adapter, "fp32")
        self._drawing += 1
        self._still.clear()
        try:
            drawn = await engine.generate(ids, sampling, session)
        finally:
            engine.release(session)
            self._drawing -= 1
            if not self._drawing:
                self._still.set()
        await self._happens(sampling.seed)
        choice = {
            "token_ids": list(drawn.ids),
            "logprobs": {"token_logprobs": list(drawn.logprobs)},
            "finish_reason": drawn.finish.value,
        }
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": len(ids)}})

    async def _load(self, request: web.Request) -> web.Response:
        from safetensors.torch import load_file

        body = await request.json()
        self.loading.append(self._drawing)
        head = self.model.lm_head.weight.detach().clone()
        tensors: dict[str, Any] = {}
        for file in sorted(Path(body["kwargs"]["folder"]).glob("*.safetensors")):
            tensors |= load_file(file)
        if not tensors:
            return web.json_response({"error": "no weights there"}, status=500)
        self.model.load_state_dict(tensors, strict=False)
        self.model.tie_weights()
        if self.stale_head:
            self.model.lm_head.weight = torch.nn.Parameter(head)
        await self._engine.sync(None, body["kwargs"]["version"])
        await self._happens(body["kwargs"]["version"])
        return web.json_response({"results": [body["kwargs"]["version"]]})

    async def _happens(self, what: int | str) -> None:
        async with self._news:
            self.happened.add(what)
            self._news.notify_all()

    async def _adapter(self, request: web.Request) -> web.Response:
        from copy import deepcopy

        from peft import PeftModel

        body = await request.json()
        if body["lora_name"] in self.adapters:
            return web.json_response({"error": "it is loaded already"}, status=400)
        adapted = PeftModel.from_pretrained(deepcopy(self.model), body["lora_path"])
        self.adapters[body["lora_name"]] = adapted.merge_and_unload().eval()
        return web.Response(text="Success")

    async def _no_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.adapters.pop(body["lora_name"], None) is None:
            return web.json_response({"error": "no such adapter"}, status=404)
        return web.Response(text="Success")
