"""One pooled asynchronous HTTP client for OpenAI-compatible addresses: when to call, when to try again, what it cost.

Passing troubles (429, 5xx, time-outs, resets, replies that are no JSON) are tried again, under a cap of attempts and of
total time, then become an `InfraFault` of that one episode; a 429 is no attempt, it is a wait, and the address's
`Limiter` decides how long and for how many. Permanent refusals stop the run with a hint: a wrong request and an empty
account at once, a refused key and a missing model (401, 403, 404) at once where nothing was ever answered, else with
the third of them. Invariants: a paid call never leaves without a reservation in the ledger; after the refusal that
stops the run no request leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import aiohttp

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.address import Address, resolve_address
from muarl_cli.engines.limiter import Limiter, limiter_of
from muarl_cli.engines.refusals import (
    MAX_REPLY_BYTES,
    ContextOverflow,
    Filtered,
    Passing,
    Refused,
    error_of,
    json_object,
    raise_for,
)
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.ledger import PRICES_VARIABLE, Ledger, Price, parse_prices, price_of
from muarl_cli.written import encoded

CONNECTIONS = 256
"""requests in flight at one address, at most"""
REFUSALS = 3
"""refused keys or missing models after which nothing is asked any more; one or two may be a gateway's hiccup"""
PROBES = 3
"""attempts to reach the address before a run: a server that is down is named within seconds"""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to keep trying one call. Waiting for a place among the requests in flight is not counted."""

    attempts: int = 6
    """answers that are troubles of the server; a 429 is none"""
    total_seconds: float = 300.0
    request_seconds: float = 180.0
    base_seconds: float = 0.25
    cap_seconds: float = 30.0

    def pause(self, attempt: int, draw: float) -> float:
        """Seconds before attempt `attempt` + 1 (counted from 0): full jitter, `draw` uniform in [0, 1)."""
        return draw * min(self.cap_seconds, self.base_seconds * 2**attempt)


def open_wire(
    base_url: str,
    *,
    max_usd: float,
    ledger: Path,
    prices: Mapping[str, Price] | None = None,
    retry: RetryPolicy | None = None,
) -> Wire:
    """The wire to `base_url` (or what the environment names), with the spend cap an address outside of this machine
    needs.

    `ledger` is the file that keeps what was spent, usually in the run's folder; it is only made where calls are paid.
    Prices of models that are not known here come from `prices` or the environment (MUARL_PRICES). Call
    `Wire.check(model)` next.
    """
    address = resolve_address(base_url)
    limiter = limiter_of(address.url, CONNECTIONS)
    if not address.paid:
        return Wire(address, retry=retry, limiter=limiter)
    known = {**(prices or {}), **parse_prices(os.environ.get(PRICES_VARIABLE, ""))}
    return Wire(address, retry=retry, limiter=limiter, ledger=Ledger(ledger, max_usd), prices=known)


class Wire:
    """Calls one address. Open it anywhere; its connections belong to the running event loop and are pooled.

    `ledger` and `prices` (model name to price) are required for an address that is not on this machine. `limiter` is
    shared by all who talk to the address (`limiter_of`); without one the wire has its own.
    """

    def __init__(
        self,
        address: Address,
        *,
        retry: RetryPolicy | None = None,
        limiter: Limiter | None = None,
        ledger: Ledger | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        if address.paid and ledger is None:
            raise MuarlError(
                f"{address.url} may cost money and there is no spend cap",
                next_step="give --max-usd",
                code=ExitCode.CONFIG,
            )
        self.address, self.retry = address, retry or RetryPolicy()
        self.limiter = limiter or Limiter(CONNECTIONS)
        self._ledger, self._prices = ledger, dict(prices or {})
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.retries: dict[str, int] = {}
        """how often a call was tried again, by cause"""
        self.drawn_tokens = 0
        """completion tokens of all replies, as the server counted them"""
        self._answered = False
        self._refusals = 0
        """in a row"""
        self._closed: Refused | None = None
        """the refusal that stopped the run"""

    @property
    def ledger(self) -> Ledger | None:
        """What is spent here, None where nothing is paid for."""
        return self._ledger

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /chat/completions; the reply as JSON, with "cost_usd" added."""
        return await self._call("/chat/completions", body)

    async def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /completions (token ids in, tokens out, for servers that can)."""
        return await self._call("/completions", body)

    async def models(self) -> list[str]:
        """Names served there; empty where the address does not tell."""
        return [str(card["id"]) for card in await self.cards()]

    async def cards(self) -> list[Mapping[str, Any]]:
        """What the address tells of each model that is served there, its "id" at least."""
        try:
            reply = await self._reached("/models")
        except (MuarlError, ContextOverflow, Filtered) as error:
            if isinstance(error, MuarlError) and error.code is ExitCode.AUTH:
                raise
            return []
        except Passing as error:
            raise MuarlError(
                f"{self.address.url} does not answer",
                why=str(error),
                next_step="start the server, or check the address and the network",
                code=ExitCode.UNAVAILABLE,
            ) from error
        data = reply.get("data")
        rows = data if isinstance(data, list) else []
        return [row for row in rows if isinstance(row, Mapping) and "id" in row]

    async def check(self, model: str) -> None:
        """Before a run: the address answers and serves `model`. Raises `MuarlError` otherwise."""
        if self.address.paid:
            self._price(model)
        served = await self.models()
        if served and model not in served:
            near = get_close_matches(model, served, n=1)
            listed = ", ".join(served[:8]) + (", ..." if len(served) > 8 else "")
            raise MuarlError(
                f"{self.address.url} does not serve {model!r}",
                why=f"it serves {listed}",
                next_step=f"did you mean {near[0]!r}?" if near else "give one of these names",
                code=ExitCode.UNAVAILABLE,
            )

    async def close(self) -> None:
        if self._session is not None and not self._session.closed:
            await self._session.close()
        self._session = None

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _reached(self, path: str) -> dict[str, Any]:
        """GET `path`, tried again a few times."""
        for attempt in range(PROBES - 1):
            try:
                return await self._once("GET", path, None)
            except Passing as trouble:
                pause = self.retry.pause(attempt, random.random()) if trouble.after is None else trouble.after
                await self.limiter.clock.sleep(pause)
        return await self._once("GET", path, None)

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        clock = self.limiter.clock
        payload = encoded(body)
        attempts, tries, spent = 0, 0, 0.0
        while True:
            async with self.limiter.slot():
                started = clock.now()
                outcome = await self._tried(path, body, payload)
            if not isinstance(outcome, Passing):
                return outcome
            failed = tries if outcome.too_many else attempts
            pause = self.retry.pause(failed, random.random()) if outcome.after is None else outcome.after
            why, tries, attempts = str(outcome), tries + 1, attempts + (not outcome.too_many)
            self.retries[why] = self.retries.get(why, 0) + 1
            spent += clock.now() - started + pause
            if attempts == self.retry.attempts or spent > self.retry.total_seconds:
                raise InfraFault(f"{path}: {why} ({tries} attempts)")
            if outcome.after is None:  # else the limiter holds everybody back
                await clock.sleep(pause)

    async def _tried(self, path: str, body: Mapping[str, Any], payload: bytes) -> dict[str, Any] | Passing:
        """One attempt: the reply, or the trouble that is worth another one; the limiter learns from both."""
        if self._closed is not None:
            raise self._closed
        started = self.limiter.clock.now()
        try:
            reply = await self._paid(path, body, payload)
        except Passing as trouble:
            if trouble.too_many:
                self.limiter.too_many()
            if trouble.after is not None:
                self.limiter.wait(trouble.after)
            return trouble
        except Refused as refusal:
            self._refusals += 1
            if not self._answered or self._refusals >= REFUSALS:
                self._closed = refusal
                raise
            return Passing(refusal.what)
        self._answered, self._refusals = True, 0
        self.drawn_tokens += (usage_of(reply) or (0, 0))[1]
        self.limiter.replied(self.limiter.clock.now() - started)
        return reply

    async def _paid(self, path: str, body: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        """One attempt, with its worst case reserved first where it costs money."""
        if not self.address.paid or self._ledger is None:
            return await self._once("POST", path, payload) | {"cost_usd": 0.0}
        price = self._price(str(body.get("model")))
        # every token is at least one byte, so the payload's length bounds the prompt from above
        worst = price.cost(len(payload), _output_bound(body))
        ticket = await asyncio.to_thread(self._ledger.reserve, worst, f"{body.get('model')} {path}")
        await self.limiter.quiet()  # the ledger took its time
        try:
            reply = await self._once("POST", path, payload)
        except Passing as trouble:
            if not trouble.maybe_billed:
                await asyncio.to_thread(self._ledger.settle, ticket, 0.0)
            raise
        except (MuarlError, ContextOverflow, Filtered):
            await asyncio.to_thread(self._ledger.settle, ticket, 0.0)
            raise
        used = usage_of(reply)
        cost = price.cost(*used) if used else worst
        await asyncio.to_thread(self._ledger.settle, ticket, cost)
        return reply | {"cost_usd": cost}

    def _price(self, model: str) -> Price:
        return price_of(model, self._prices)

    async def _once(self, method: str, path: str, payload: bytes | None) -> dict[str, Any]:
        """One request; the JSON object it returned, or `Passing`, or a permanent error."""
        session = self._open()
        try:
            async with session.request(
                method, self.address.url + path, data=payload, allow_redirects=False
            ) as response:
                raw = await response.content.read(MAX_REPLY_BYTES + 1)
                while not response.content.at_eof() and len(raw) <= MAX_REPLY_BYTES:
                    raw += await response.content.read(MAX_REPLY_BYTES + 1 - len(raw))
                status, headers = response.status, response.headers
        except TimeoutError as error:
            raise Passing("time-out", maybe_billed=True) from error
        except aiohttp.ClientConnectorError as error:
            raise Passing(f"cannot connect ({type(error.os_error).__name__})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Passing(f"connection lost ({type(error).__name__})", maybe_billed=True) from error
        if status == 200:
            return json_object(raw)
        raise_for(status, headers, error_of(raw), self.address, path)
        raise AssertionError("unreachable")

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                # how many at once is the limiter's business
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
                timeout=aiohttp.ClientTimeout(total=self.retry.request_seconds, sock_connect=10.0),
                headers={
                    "Authorization": f"Bearer {self.address.key}",
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                },
                trust_env=not self.address.loopback,  # a proxy never stands between two programs of one machine
            )
        return self._session


def usage_of(reply: Mapping[str, Any]) -> tuple[int, int] | None:
    """(prompt tokens, completion tokens) as the server counted them, None where it did not."""
    usage = reply.get("usage")
    if not isinstance(usage, Mapping):
        return None
    try:
        return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (TypeError, ValueError):
        return None


def _output_bound(body: Mapping[str, Any]) -> int:
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    if not isinstance(bound, int):
        raise MuarlError(
            "a paid call needs a limit of output tokens, or its cost cannot be capped", code=ExitCode.CONFIG
        )
    return bound * int(body.get("n") or 1)
