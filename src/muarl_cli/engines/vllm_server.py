"""Turns drawn by one or several vLLM servers: token ids out, token ids and log-probabilities in, nothing re-tokenised.

A conversation stays with the server that drew its first turn, whose prefix cache holds the rest of it; when that server
dies, its conversations move to the others, which compute the prompt anew. Weights reach the servers as files that they
can see: a LoRA adapter in place, or the whole model. Invariant: after a sync every server has been asked what it
computes on a fixed prompt, and it was what the trainer computes (`canary.py`); otherwise the run stops.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import Canary
from muarl_cli.engines.protocol import Capabilities, Finish, Generation, Sampling
from muarl_cli.engines.vllm_admin import ADAPTER, Features, VllmAdmin
from muarl_cli.engines.wire import Wire
from muarl_cli.errors import ExitCode, MuarlError

Writer = Callable[[Path], None]
"""writes what is to be served into an empty folder: a Hugging Face folder, or an adapter"""


@dataclass
class Server:
    """One address."""

    wire: Wire
    admin: VllmAdmin
    features: Features
    model: str
    """the name to ask for; an adapter's after the first sync of one"""
    alive: bool = True
    sessions: set[str] = field(default_factory=set)
    steady: asyncio.Event = field(default_factory=asyncio.Event)
    """set but for while its weights are being replaced"""

    def __post_init__(self) -> None:
        self.steady.set()


class VllmServer:
    """An `Engine` over servers that all serve the same weights. Make one with `open_servers`.

    `exchange` is a folder that the servers can read, for weights on their way; by default a temporary one.
    """

    def __init__(self, servers: Sequence[Server], version: str, exchange: Path | None = None) -> None:
        if not servers:
            raise ValueError("an engine needs a server")
        self._servers = list(servers)
        self._version = version
        self._home: dict[str, Server] = {}
        self._own = exchange is None
        # absolute: a server has a working directory of its own
        self._exchange = Path(tempfile.mkdtemp(prefix="muarl-weights-")) if exchange is None else exchange.resolve()
        self.moved = 0
        """conversations that went on elsewhere, because their server died"""

    @property
    def capabilities(self) -> Capabilities:
        full = all(server.features.full_weights or server.features.adapters for server in self._servers)
        return Capabilities(token_ids=True, logprobs=True, keeps_sessions=True, shares_weights=False, weight_sync=full)

    @property
    def weight_version(self) -> str:
        return self._version

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        """Draw one turn. Raises `InfraFault` where no server is left that answers."""
        if not prompt_ids or sampling.max_tokens < 1:
            raise ValueError("a turn needs a prompt and room for one token")
        while True:
            server = self._place(session)
            await server.steady.wait()
            version = self._version  # the oldest that may draw: it is named anew when every server has the next one
            try:
                reply = await server.wire.completions(_request(server.model, prompt_ids, sampling))
            except InfraFault:
                if not server.steady.is_set():  # it was paused for too long, not lost: ask again
                    continue
                server.alive = False
                if not any(other.alive for other in self._servers):
                    raise
                self.moved += len(server.sessions)
                for name in server.sessions:
                    self._home.pop(name, None)
                server.sessions.clear()
                continue
            return _generation(reply, sampling, version)

    def release(self, session: str) -> None:
        server = self._home.pop(session, None)
        if server is not None:
            server.sessions.discard(session)

    async def sync(self, weights: Mapping[str, Any] | None, version: str) -> None:
        """Load the weights that `share` wrote last; nothing is shared in memory, so `weights` must be None."""
        if weights is not None:
            raise ValueError("a server takes weights as files: write them with share()")
        self._version = version

    async def share(self, write: Writer, version: str, canary: Canary, adapter: bool) -> None:
        """Give every server new weights and check what it computes with them. Raises `MuarlError` on any mismatch."""
        folder = self._exchange / f"weights-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        await asyncio.to_thread(write, folder)
        try:
            await asyncio.gather(*(self._share(server, folder, version, canary, adapter) for server in self._servers))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._version = version

    def require_updates_in_flight(self) -> None:
        """Raises `MuarlError` for a server whose weights cannot be replaced under running conversations."""
        for server in self._servers:
            if not (server.features.pauses and server.features.resets_cache):
                raise MuarlError(
                    "the server cannot take new weights while conversations go on",
                    where=server.admin.root,
                    why="it offers no pause, or no reset of its prefix cache, which holds the work of older weights",
                    next_step="start it with `muarl serve MODEL`, or leave staleness at 0",
                    code=ExitCode.UNAVAILABLE,
                )

    async def _share(self, server: Server, folder: Path, version: str, canary: Canary, adapter: bool) -> None:
        server.steady.clear()
        try:
            if adapter:
                server.model = await server.admin.load_adapter(folder, server.features)
            else:
                await server.admin.load_weights(folder, version, server.features)
        finally:
            server.steady.set()
        server.alive = True
        await self.check(server, canary)

    async def check(self, server: Server, canary: Canary) -> None:
        """Compare what a server computes on the canary's prompt with what the trainer does."""
        reply = await server.wire.completions(
            {
                "model": server.model,
                "prompt": list(canary.ids),
                "max_tokens": 1,
                "temperature": 0.0,
                "prompt_logprobs": 0,
                "return_token_ids": True,
            }
        )
        canary.compare(_prompt_logprobs(reply, canary.ids), server.admin.root)

    async def close_connections(self) -> None:
        for server in self._servers:
            await server.wire.close()

    def close(self) -> None:
        self._home.clear()
        if self._own:
            shutil.rmtree(self._exchange, ignore_errors=True)

    def _place(self, session: str) -> Server:
        """The session's server; a new session goes to the one that holds the fewest."""
        server = self._home.get(session)
        if server is None:
            server = min((s for s in self._servers if s.alive), key=lambda s: len(s.sessions), default=None)
            if server is None:
                raise InfraFault("no server is left that answers")
            self._home[session] = server
            server.sessions.add(session)
        return server


async def open_servers(wires: Sequence[Wire], version: str, exchange: Path | None = None) -> VllmServer:
    """An engine over the servers behind `wires`, each of which must answer and serve a model. Connections are not kept:
    they belong to the event loop that opened them, and the engine may be used from another."""
    servers = []
    for wire in wires:
        names = [name for name in await wire.models() if name != ADAPTER]
        if not names:
            raise MuarlError(
                f"{wire.address.url} serves no model",
                next_step="start a server with: muarl serve MODEL",
                code=ExitCode.UNAVAILABLE,
            )
        admin = VllmAdmin(wire.address.url, wire.address.key)
        servers.append(Server(wire, admin, await admin.features(), names[0]))
        await wire.close()
    return VllmServer(servers, version, exchange)


def _request(model: str, prompt: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """Everything that shapes the distribution is said, so that a server's own defaults cannot."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": sampling.seed % 2**31,
        "stop_token_ids": list(sampling.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }


def _generation(reply: Mapping[str, Any], sampling: Sampling, version: str) -> Generation:
    """The sampled ids as the server drew them. Raises `MuarlError` for a server that does not return them."""
    choice = (reply.get("choices") or [{}])[0]
    ids = choice.get("token_ids")
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    if not ids or logprobs is None or len(ids) != len(logprobs) or any(p is None for p in logprobs):
        raise MuarlError(
            "the server does not return token ids with their log-probabilities",
            why=f"{len(ids or [])} ids and {len(logprobs or [])} log-probabilities came back",
            next_step="use a vLLM server from 0.10 on (muarl serve MODEL); without them nothing may be trained on",
            code=ExitCode.UNAVAILABLE,
        )
    finish = Finish.STOP if ids[-1] in sampling.stop_ids else Finish.LENGTH
    return Generation(tuple(ids), tuple(float(p) for p in logprobs), finish, version)


def _prompt_logprobs(reply: Mapping[str, Any], ids: Sequence[int]) -> list[float]:
    """The log-probability of each prompt token but the first."""
    rows = (reply.get("choices") or [{}])[0].get("prompt_logprobs") or []
    if len(rows) != len(ids):
        raise MuarlError(
            "the server does not return log-probabilities of a prompt",
            why=f"{len(rows)} rows for {len(ids)} tokens",
            next_step="use a vLLM server (muarl serve MODEL)",
            code=ExitCode.UNAVAILABLE,
        )
    return [float(row[str(token)]["logprob"]) for row, token in zip(rows[1:], ids[1:], strict=True)]
