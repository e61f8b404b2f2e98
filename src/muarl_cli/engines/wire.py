"""One pooled asynchronous HTTP client for OpenAI-compatible addresses: where to call, when to try again, what it cost.

Passing troubles (429, 5xx, time-outs, resets, replies that are no JSON) are tried again with full jitter, under a cap
of attempts and of total time, then become an `InfraFault` of that one episode. Permanent ones (400, 401, 403, 404, no
quota) stop the run at once with a hint. Invariant: a paid call never leaves without a reservation in the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.ledger import PRICES_VARIABLE, Ledger, Price, parse_prices, price_of

VENDOR = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
MAX_REPLY_BYTES = 32 * 1024 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ContextOverflow(Exception):
    """The conversation no longer fits the model; not a fault of the wire, so the caller decides whose it is."""


class Filtered(Exception):
    """The address refused the prompt by its content filter (a 400 that is no mistake of the request)."""


@dataclass(frozen=True)
class Address:
    """Where to call. The key never shows in a repr, a log or an error."""

    url: str
    """base URL without a trailing slash"""
    key: str = field(repr=False)
    loopback: bool

    @property
    def paid(self) -> bool:
        """Whether calls are taken to cost money: everywhere but on this machine."""
        return not self.loopback

    @property
    def vendor(self) -> bool:
        return self.url == VENDOR


def resolve_address(
    base_url: str, environment: Mapping[str, str] | None = None, key_variable: str = KEY_VARIABLE
) -> Address:
    """The address of a model: `base_url` if given, else OPENAI_BASE_URL, else the vendor's. Keys come from the
    environment only. Raises `MuarlError` for an address that is not safe or needs a key that is not there."""
    env = os.environ if environment is None else environment
    url = (base_url or env.get(URL_VARIABLE, "") or VENDOR).strip().rstrip("/")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    loopback = host in _LOOPBACK or host.startswith("127.")
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or parts.query:
        raise MuarlError(
            "this is no usable base URL",
            where="--base-url" if base_url else URL_VARIABLE,
            why="it must be http(s)://host[:port]/path, without a user name, password or query",
            next_step="for example http://127.0.0.1:8000/v1",
            code=ExitCode.CONFIG,
        )
    if parts.scheme == "http" and not loopback:
        raise MuarlError(
            f"refusing to talk to {host} without TLS",
            where="--base-url" if base_url else URL_VARIABLE,
            why="plain http would show the key and every conversation to the network",
            next_step="use https://, or a tunnel to an address on 127.0.0.1",
            code=ExitCode.CONFIG,
        )
    key = env.get(key_variable, "").strip()
    if not key and not loopback:
        raise MuarlError(
            f"no key for {host}",
            why=f"{key_variable} is not set",
            next_step=f"export {key_variable}=..., or give --base-url of a local server",
            code=ExitCode.AUTH,
        )
    return Address(url, key or "none", loopback)


@dataclass(frozen=True)
class RetryPolicy:
    """How long to keep trying one call."""

    attempts: int = 6
    total_seconds: float = 300.0
    request_seconds: float = 180.0
    base_seconds: float = 0.5
    cap_seconds: float = 30.0

    def pause(self, attempt: int, draw: float) -> float:
        """Seconds before attempt `attempt` + 1 (counted from 0): full jitter, `draw` uniform in [0, 1)."""
        return draw * min(self.cap_seconds, self.base_seconds * 2**attempt)


def open_wire(
    base_url: str,
    *,
    max_usd: float,
    ledger: Path,
    connections: int = 256,
    prices: Mapping[str, Price] | None = None,
) -> Wire:
    """The wire to `base_url` (or what the environment names), with the spend cap an address outside of this machine
    needs.

    `ledger` is the file that keeps what was spent, usually in the run's folder; it is only made where calls are paid.
    Prices of models that are not known here come from `prices` or the environment (MUARL_PRICES). Call
    `Wire.check(model)` next.
    """
    address = resolve_address(base_url)
    if not address.paid:
        return Wire(address, connections=connections)
    known = {**(prices or {}), **parse_prices(os.environ.get(PRICES_VARIABLE, ""))}
    return Wire(address, connections=connections, ledger=Ledger(ledger, max_usd), prices=known)


class _Passing(Exception):
    """Worth another try, after `after` seconds where the server asked for that."""

    def __init__(self, why: str, after: float | None = None, maybe_billed: bool = False) -> None:
        super().__init__(why)
        self.after, self.maybe_billed = after, maybe_billed


class Wire:
    """Calls one address. Open it anywhere; its connections belong to the running event loop and are pooled.

    `ledger` and `prices` (model name to price) are required for an address that is not on this machine.
    """

    def __init__(
        self,
        address: Address,
        *,
        retry: RetryPolicy | None = None,
        connections: int = 256,
        ledger: Ledger | None = None,
        prices: Mapping[str, Price] | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        if address.paid and ledger is None:
            raise MuarlError(
                f"{address.url} may cost money and there is no spend cap",
                next_step="give --max-usd",
                code=ExitCode.CONFIG,
            )
        self.address, self.retry = address, retry or RetryPolicy()
        self._connections, self._ledger, self._prices = connections, ledger, dict(prices or {})
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.retries: dict[str, int] = {}
        """how often a call was tried again, by cause"""

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /chat/completions; the reply as JSON, with "cost_usd" added."""
        return await self._call("/chat/completions", body)

    async def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /completions (token ids in, tokens out, for servers that can)."""
        return await self._call("/completions", body)

    async def models(self) -> list[str]:
        """Names served there; empty where the address does not tell."""
        try:
            reply = await self._once("GET", "/models", None)
        except (MuarlError, ContextOverflow, Filtered) as error:
            if isinstance(error, MuarlError) and error.code is ExitCode.AUTH:
                raise
            return []
        except _Passing as error:
            raise MuarlError(
                f"{self.address.url} does not answer",
                why=str(error),
                next_step="start the server, or check the address and the network",
                code=ExitCode.UNAVAILABLE,
            ) from error
        data = reply.get("data")
        rows = data if isinstance(data, list) else []
        return [str(row["id"]) for row in rows if isinstance(row, Mapping) and "id" in row]

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

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        started, why = clock(), ""
        payload = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        for attempt in range(self.retry.attempts):
            try:
                return await self._paid(path, body, payload)
            except _Passing as trouble:
                why = str(trouble)
                self.retries[why] = self.retries.get(why, 0) + 1
                pause = self.retry.pause(attempt, random.random()) if trouble.after is None else trouble.after
            if attempt + 1 == self.retry.attempts or clock() - started + pause > self.retry.total_seconds:
                break
            await self._sleep(pause)
        raise InfraFault(f"{path}: {why} ({attempt + 1} attempts)")

    async def _paid(self, path: str, body: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        """One attempt, with its worst case reserved first where it costs money."""
        if not self.address.paid or self._ledger is None:
            return await self._once("POST", path, payload) | {"cost_usd": 0.0}
        price = self._price(str(body.get("model")))
        # every token is at least one byte, so the payload's length bounds the prompt from above
        worst = price.cost(len(payload), _output_bound(body))
        ticket = await asyncio.to_thread(self._ledger.reserve, worst, f"{body.get('model')} {path}")
        try:
            reply = await self._once("POST", path, payload)
        except _Passing as trouble:
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
        """One request; the JSON object it returned, or `_Passing`, or a permanent error."""
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
            raise _Passing("time-out", maybe_billed=True) from error
        except aiohttp.ClientConnectorError as error:
            raise _Passing(f"cannot connect ({type(error.os_error).__name__})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Passing(f"connection lost ({type(error).__name__})", maybe_billed=True) from error
        if status == 200:
            return _json_object(raw)
        _raise_for(status, headers, _error_of(raw), self.address, path)
        raise AssertionError("unreachable")

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60.0),
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


def _json_object(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_REPLY_BYTES:
        raise _Passing("reply too large", maybe_billed=True)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Passing("reply is not JSON", maybe_billed=True) from error
    if not isinstance(value, dict):
        raise _Passing("reply is not a JSON object", maybe_billed=True)
    if "error" in value and "choices" not in value and "data" not in value:
        raise _Passing("an error inside a reply with status 200", maybe_billed=True)
    return value


def _error_of(raw: bytes) -> Mapping[str, Any]:
    """The error object of a refusal; servers differ, so text is accepted too."""
    try:
        value = json.loads(raw[:65_536])
    except (ValueError, RecursionError):
        return {"message": raw[:300].decode("utf-8", "replace")}
    if isinstance(value, dict):
        inner = value.get("error", value)
        return inner if isinstance(inner, dict) else {"message": str(inner)}
    return {"message": str(value)[:300]}


def _raise_for(status: int, headers: Mapping[str, str], error: Mapping[str, Any], address: Address, path: str) -> None:
    message = " ".join(str(error.get("message", "")).split())[:300].replace(address.key, "***")
    code = str(error.get("code", ""))
    where = address.url + path
    if status == 429 and code != "insufficient_quota":
        raise _Passing("429 too many requests", after=_retry_after(headers))
    if status in (408, 409, 425) or status >= 500:
        raise _Passing(f"status {status}", after=_retry_after(headers))
    if status in (400, 413, 422):
        if code == "context_length_exceeded" or "maximum context length" in message or "context window" in message:
            raise ContextOverflow(message)
        if code == "content_filter" or "content management policy" in message:
            raise Filtered(message)
        raise MuarlError(
            f"the server refused the request as wrong (status {status})",
            where=where,
            why=message,
            next_step="check the model's name and that the server supports tools and these sampling settings",
            code=ExitCode.UNAVAILABLE,
        )
    if status in (401, 403):
        raise MuarlError(
            f"the server refused the key (status {status})",
            where=where,
            why=message,
            next_step=f"check {KEY_VARIABLE}, and that this key may use this model",
            code=ExitCode.AUTH,
        )
    if status == 429:
        raise MuarlError(
            "the account has no quota left",
            where=where,
            why=message,
            next_step="check the account's plan and billing; the same command resumes the run",
            code=ExitCode.UNAVAILABLE,
        )
    raise MuarlError(
        f"the address or the model does not exist (status {status})",
        where=where,
        why=message,
        next_step="check the base URL (it usually ends in /v1) and the model's name; it may have been retired",
        code=ExitCode.UNAVAILABLE,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait (number form only), bounded to ten minutes."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return min(seconds, 600.0)
    return None
