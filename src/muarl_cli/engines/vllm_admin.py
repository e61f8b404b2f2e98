"""The control side of a vLLM server: what it can do, new weights, and whether it really has them.

Features are read from the server's own OpenAPI document, since its routes move between versions. New weights come as a
file that the server can see: an adapter is served beside the last one and then instead of it, full weights are loaded
by `vllm_worker.Worker`, between a pause that keeps running requests and a reset of the prefix cache. Invariant: a
refused or half-done update is an error, never a warning; the caller checks afterwards what the server computes
(`canary.py`), because a 200 is no proof.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from muarl_cli.engines.vllm_terms import ADAPTER
from muarl_cli.errors import ExitCode, MuarlError

SECONDS = 600.0
"""of one control call: loading 60 GB from a disk takes minutes"""
_LORA, _UNLORA, _RPC, _PAUSE, _RESUME, _RESET = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/collective_rpc",
    "/pause",
    "/resume",
    "/reset_prefix_cache",
)


class Unanswered(MuarlError):
    """Nothing answers at the address."""


@dataclass(frozen=True)
class Features:
    """What a server says that it can do."""

    version: str
    adapters: bool
    """adapters can be loaded while it runs (VLLM_ALLOW_RUNTIME_LORA_UPDATING, --enable-lora)"""
    full_weights: bool
    """weights can be replaced while it runs (VLLM_SERVER_DEV_MODE, --worker-extension-cls)"""
    pauses: bool
    resets_cache: bool


class VllmAdmin:
    """Control calls to one server. `url` is its base URL, with or without /v1."""

    def __init__(self, url: str, key: str = "none") -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"}

    async def features(self) -> Features:
        """Raises `MuarlError` where nothing answers there, or something that is no vLLM server."""
        document = await self._call("GET", "/openapi.json")
        paths = set(document.get("paths", {}))
        if "/v1/completions" not in paths:
            raise MuarlError(
                f"{self.root} is no server that takes token ids",
                why="its OpenAPI document has no /v1/completions",
                next_step="start one with: muarl serve MODEL",
                code=ExitCode.UNAVAILABLE,
            )
        version = str((await self._call("GET", "/version")).get("version", "")) if "/version" in paths else ""
        return Features(
            version=version,
            adapters={_LORA, _UNLORA} <= paths,
            full_weights=_RPC in paths,
            pauses={_PAUSE, _RESUME} <= paths,
            resets_cache=_RESET in paths,
        )

    async def load_adapter(self, folder: Path, features: Features, previous: str) -> str:
        """Serve the adapter in `folder`, and no longer `previous` where one was served; the model name to ask for from
        now on. A new name each time: what vLLM is told to replace in place it reads from the disk again at every step
        of its loop."""
        if not features.adapters:
            raise self._cannot("load adapters", "--enable-lora", " --max-lora-rank RANK")
        name = f"{ADAPTER}-{folder.name}"
        await self._call("POST", _LORA, {"lora_name": name, "lora_path": str(folder)})
        if previous:
            await self._call("POST", _UNLORA, {"lora_name": previous})
        return name

    async def load_weights(self, folder: Path, version: str, features: Features) -> None:
        """Replace all weights by those in `folder` (a Hugging Face folder)."""
        if not features.full_weights:
            raise self._cannot("replace weights", "VLLM_SERVER_DEV_MODE=1 and the worker class of muarl")
        async with self._paused(features):
            reply = await self._call(
                "POST", _RPC, {"method": "muarl_load", "kwargs": {"folder": str(folder), "version": version}}
            )
        results = reply.get("results")
        if not results or any(result is None for result in results):
            raise MuarlError(
                "the server did not say that it has the new weights",
                where=self.root,
                why=f"its workers answered {results!r}",
                next_step="start it with: muarl serve MODEL",
                code=ExitCode.UNAVAILABLE,
            )

    async def drop_cache(self, features: Features) -> None:
        """Let it forget the prompts that it has read, where it can."""
        if features.resets_cache:
            await self._call("POST", _RESET)

    @asynccontextmanager
    async def _paused(self, features: Features) -> AsyncIterator[None]:
        """Requests that run wait within the block and go on with what was loaded. Nothing that was computed with the
        weights before is used again: a prefix cache knows an adapter by its name, which stays the same, and what a
        running request holds of it is only let go where that is asked for."""
        if features.pauses:
            await self._call("POST", f"{_PAUSE}?mode=keep")
        try:
            yield
            if features.resets_cache:
                await self._call("POST", f"{_RESET}?reset_running_requests=true")
        finally:
            if features.pauses:
                await self._call("POST", _RESUME)

    def _cannot(self, what: str, how: str, flags: str = "") -> MuarlError:
        return MuarlError(
            f"the server at {self.root} cannot {what} while it runs",
            why=f"it was started without {how}",
            next_step=f"start it with: muarl serve MODEL{flags}",
            code=ExitCode.UNAVAILABLE,
        )

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=10.0)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session,
                session.request(method, self.root + path, json=body) as response,
            ):
                text = await response.text()
                status, kind = response.status, response.content_type
                if status == 200:
                    found = await response.json() if kind == "application/json" and text else {}
                    return found if isinstance(found, dict) else {"results": found}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unanswered(
                f"{self.root} does not answer",
                where=path,
                why=f"{type(error).__name__}: {error}",
                next_step="start the server (muarl serve MODEL), or check the address",
                code=ExitCode.UNAVAILABLE,
            ) from error
        raise MuarlError(
            f"the server refused a control call (status {status})",
            where=self.root + path,
            why=" ".join(text.split())[:300],
            next_step="look at the server's own log; muarl serve MODEL starts one that knows these calls",
            code=ExitCode.UNAVAILABLE,
        )
