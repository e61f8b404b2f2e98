"""Turns drawn by one or several vLLM servers: token ids out, token ids and log-probabilities in, nothing re-tokenised.

A conversation stays with the server that drew its first turn, whose prefix cache holds the rest of it; when that server
dies, its conversations move to the others, which compute the prompt anew. Weights reach the servers as files that they
can see: a LoRA adapter in place, or the whole model. Invariant: after a sync every server has been asked what it
computes on a fixed prompt, and it was what the trainer computes (`canary.py`); otherwise the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import Canary
from muarl_cli.engines.exchange import Exchange, Writer
from muarl_cli.engines.protocol import Capabilities, Generation, Sampling
from muarl_cli.engines.vllm_admin import Features, VllmAdmin
from muarl_cli.engines.vllm_terms import ADAPTER, CANARY, sampling_options, turn_of
from muarl_cli.engines.wire import Wire
from muarl_cli.errors import ExitCode, MuarlError


@dataclass
class Server:
    """One address."""

    wire: Wire
    admin: VllmAdmin
    features: Features
    base: str
    """the name under which the model itself is served"""
    adapter: str = ""
    """the name of the adapter that plays now; none before the first sync of one"""
    alive: bool = True
    sessions: set[str] = field(default_factory=set)
    steady: asyncio.Event = field(default_factory=asyncio.Event)
    """set but for while its weights are being replaced"""

    def __post_init__(self) -> None:
        self.steady.set()

    @property
    def model(self) -> str:
        """The name to ask for."""
        return self.adapter or self.base


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
        self._exchange = Exchange(exchange)
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
                reply = await server.wire.completions(
                    {
                        "model": server.model,
                        "prompt": list(prompt_ids),
                        "return_token_ids": True,
                        **sampling_options(sampling),
                    }
                )
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
        async with self._exchange.delivery(write, version, adapter) as folder:
            await asyncio.gather(*(self._share(server, folder, version, canary, adapter) for server in self._servers))
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
                server.adapter = await server.admin.load_adapter(folder, server.features, server.adapter)
            else:
                await server.admin.load_weights(folder, version, server.features)
                server.adapter = ""
        finally:
            server.steady.set()
        server.alive = True
        await self.check(server, canary)

    async def check(self, server: Server, canary: Canary) -> None:
        """Compare what a server computes on the canary's prompt with what the trainer does."""
        canary.compare(await self._computed(server, canary), server.admin.root)

    async def distances(self, canary: Canary) -> dict[str, float]:
        """How far what each server computes is from the canary, by its address."""
        found = await asyncio.gather(*(self._computed(server, canary) for server in self._servers))
        return {server.admin.root: canary.distance(served) for server, served in zip(self._servers, found, strict=True)}

    async def _computed(self, server: Server, canary: Canary) -> list[float]:
        reply = await server.wire.completions(
            {"model": server.model, "prompt": list(canary.ids), "return_token_ids": True, **CANARY}
        )
        return _prompt_logprobs(reply, canary.ids)

    async def close_connections(self) -> None:
        for server in self._servers:
            await server.wire.close()

    def close(self) -> None:
        self._home.clear()
        self._exchange.close()

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
        async with wire:
            names = [name for name in await wire.models() if not name.startswith(ADAPTER)]
            if not names:
                raise MuarlError(
                    f"{wire.address.url} serves no model",
                    next_step="start a server with: muarl serve MODEL",
                    code=ExitCode.UNAVAILABLE,
                )
            admin = VllmAdmin(wire.address.url, wire.address.key)
            servers.append(Server(wire, admin, await admin.features(), names[0]))
    return VllmServer(servers, version, exchange)


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
    return turn_of(ids, logprobs, sampling, version)


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
