"""Turns drawn by one or several vLLM servers: token ids out, token ids and log-probabilities in, nothing re-tokenised.

A conversation stays with the server that drew its first turn, whose prefix cache holds the rest of it; when that server
dies, its conversations move to the others, which compute the prompt anew; it is asked again after the next sync, or
when no other is left. Weights reach the servers as files that they can see: a LoRA adapter in place, or the whole
model. Invariant: no server draws a turn that has not been asked, since the last sync and since it was away, what it
computes on a fixed prompt, and it was what the trainer computes (`canary.py`); otherwise the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import Canary
from muarl_cli.engines.exchange import Exchange, Writer
from muarl_cli.engines.protocol import Capabilities, Generation, Sampling
from muarl_cli.engines.vllm_admin import Features, Unanswered, VllmAdmin
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
    context: int | None = None
    """tokens that a conversation may have there, where it tells"""
    alive: bool = True
    lost: int = 0
    """how often it was given up"""
    behind: bool = False
    """it missed a sync: what it draws, or is still drawing, is not the policy's"""
    canary: Canary | None = None
    """what it has to compute: since the last sync, or since it was asked"""
    sessions: set[str] = field(default_factory=set)
    steady: asyncio.Event = field(default_factory=asyncio.Event)
    """set but for while its weights are being replaced"""
    turns: int = 0
    """under way"""
    still: asyncio.Event = field(default_factory=asyncio.Event)
    """set while no turn is under way"""
    asked: asyncio.Lock = field(default_factory=asyncio.Lock)
    """held by the turn that asks a server that was away what it computes"""

    def __post_init__(self) -> None:
        self.steady.set()
        self.still.set()

    @property
    def model(self) -> str:
        """The name to ask for."""
        return self.adapter or self.base

    async def draw(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> dict[str, Any]:
        """Its reply to a turn. Raises `InfraFault`."""
        self.turns += 1
        self.still.clear()
        try:
            return await self.wire.completions(
                {
                    "model": self.model,
                    "prompt": list(prompt_ids),
                    "return_token_ids": True,
                    **sampling_options(sampling),
                }
            )
        finally:
            self.turns -= 1
            if not self.turns:
                self.still.set()


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

    @property
    def context(self) -> int | None:
        """Tokens that a conversation may have on every server, where they tell."""
        return min((server.context for server in self._servers if server.context), default=None)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Addresses that did not answer when they were asked last."""
        return tuple(server.admin.root for server in self._servers if not server.alive)

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        """Draw one turn. Raises `InfraFault` where no server is left that answers."""
        if not prompt_ids or sampling.max_tokens < 1:
            raise ValueError("a turn needs a prompt and room for one token")
        while True:
            server = self._place(session)
            await server.steady.wait()
            if server.behind:  # while this turn waited
                continue
            version = self._version  # the oldest that may draw: it is named anew when every server has the next one
            try:
                if not server.alive:
                    await self._taken_up_again(server)
                reply = await server.draw(prompt_ids, sampling)
            except InfraFault:
                if not server.steady.is_set():  # it was paused for too long, not lost: ask again
                    continue
                self._lose(server)
                if not any(other.alive for other in self._servers):
                    raise
                continue
            if not server.behind:
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
        """Give every server new weights and check what it computes with them. A server that does not answer is left
        out until the next time. Raises `MuarlError` on any mismatch or refusal, and where no server answers."""
        async with self._exchange.delivery(write, version, adapter) as folder:
            sharing = (self._share(server, folder, version, canary, adapter) for server in self._servers)
            errors = [e for e in await asyncio.gather(*sharing, return_exceptions=True) if e is not None]
            away = [e for e in errors if isinstance(e, Unanswered | InfraFault)]
            for error in errors:
                if error not in away:
                    raise error
            if len(away) == len(self._servers):
                raise Unanswered(
                    "no server took the new weights",
                    where=", ".join(self.unreachable),
                    why=str(away[0]),
                    next_step="start the servers again (muarl serve MODEL); the same command resumes the run",
                    code=ExitCode.UNAVAILABLE,
                ) from away[0]
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
            if adapter:  # a server that was away may have been started anew, without the last one
                last = server.adapter if server.alive else ""
                server.adapter = await server.admin.load_adapter(folder, server.features, last)
            else:
                await server.admin.load_weights(folder, version, server.features)
                server.adapter = ""
            await self.check(server, canary)
        except (Unanswered, InfraFault):
            server.behind = True
            self._lose(server)
            raise
        finally:
            server.steady.set()
        server.alive, server.behind, server.canary = True, False, canary

    async def check(self, server: Server, canary: Canary) -> None:
        """Compare what a server computes on the canary's prompt with what the trainer does. Where a server takes
        adapters its turns end first: there vLLM reads the prompt's rows as those of the turns beside it, and dies."""
        if server.features.adapters:
            await server.still.wait()
        canary.compare(await self._computed(server, canary), server.admin.root)

    async def distances(self, canary: Canary) -> dict[str, float]:
        """How far what each server computes is from the canary, by its address. One that does not answer later on, and
        is taken up again, has to compute what it did now."""
        found = await asyncio.gather(*(self._computed(server, canary) for server in self._servers))
        for server, served in zip(self._servers, found, strict=True):
            server.canary = replace(canary, logprobs=tuple(served))
        return {server.admin.root: canary.distance(served) for server, served in zip(self._servers, found, strict=True)}

    async def _computed(self, server: Server, canary: Canary) -> list[float]:
        reply = await server.wire.completions(
            {"model": server.model, "prompt": list(canary.ids), "return_token_ids": True, **CANARY}
        )
        return _prompt_logprobs(reply, canary.ids)

    async def drop_caches(self) -> None:
        """Let every server forget the prompts that it has read, where it can."""
        await asyncio.gather(*(server.admin.drop_cache(server.features) for server in self._servers))

    async def close_connections(self) -> None:
        for server in self._servers:
            await server.wire.close()

    def close(self) -> None:
        self._home.clear()
        self._exchange.close()

    async def _taken_up_again(self, server: Server) -> None:
        """It did not answer, and no other is left. It may have been started anew meanwhile, with other weights: where
        it was ever asked what it computes, it is asked again, once. Raises as `check` does."""
        async with server.asked:
            if server.canary is not None and not server.alive:
                await self.check(server, server.canary)
            server.alive = True

    def _lose(self, server: Server) -> None:
        """It does not answer: its conversations go on elsewhere."""
        server.alive, server.lost = False, server.lost + 1
        self.moved += len(server.sessions) if any(other.alive for other in self._servers) else 0
        for name in server.sessions:
            self._home.pop(name, None)
        server.sessions.clear()

    def _place(self, session: str) -> Server:
        """The session's server; a new session goes to the one that holds the fewest."""
        server = self._home.get(session)
        if server is None:
            usable = [s for s in self._servers if s.alive] or [s for s in self._servers if not s.behind]
            if not usable:
                raise InfraFault("no server is left that answers")
            server = min(usable, key=lambda s: (len(s.sessions), s.lost))
            self._home[session] = server
            server.sessions.add(session)
        return server


async def open_servers(wires: Sequence[Wire], version: str, exchange: Path | None = None) -> VllmServer:
    """An engine over the servers behind `wires`, each of which must answer and serve a model. Connections are not kept:
    they belong to the event loop that opened them, and the engine may be used from another."""
    servers = []
    for wire in wires:
        async with wire:
            cards = [card for card in await wire.cards() if not str(card["id"]).startswith(ADAPTER)]
            if not cards:
                raise MuarlError(
                    f"{wire.address.url} serves no model",
                    where="--engine",
                    why=f"no model is listed at {wire.address.url}/models",
                    next_step="start a server with: muarl serve MODEL; its address ends in /v1",
                    code=ExitCode.UNAVAILABLE,
                )
            admin, holds = VllmAdmin(wire.address.url, wire.address.key), cards[0].get("max_model_len")
            context = holds if isinstance(holds, int) else None
            servers.append(Server(wire, admin, await admin.features(), str(cards[0]["id"]), context=context))
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
