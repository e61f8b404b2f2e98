"""Where a model answers: the base URL, its key, and whether calls cost money.

Invariant: a key comes from the environment only and never shows; what leaves this machine goes over TLS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from muarl_cli.errors import ExitCode, MuarlError

VENDOR = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
ENGINE_KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM's own name for the key that a server asks for; a vendor's key is not for a server of one's own"""


@dataclass(frozen=True)
class Address:
    """Where to call. The key never shows in a repr, a log or an error."""

    url: str
    """base URL without a trailing slash"""
    key: str = field(repr=False)
    loopback: bool
    own: bool = False
    """a server of one's own, wherever it is"""

    @property
    def paid(self) -> bool:
        """Whether calls are taken to cost money: everywhere but on this machine and on servers of one's own."""
        return not self.loopback and not self.own

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
    loopback = _on_this_machine(url, "--base-url" if base_url else URL_VARIABLE)
    key = env.get(key_variable, "").strip()
    if not key and not loopback:
        raise MuarlError(
            f"no key for {urlsplit(url).hostname}",
            why=f"{key_variable} is not set",
            next_step=f"export {key_variable}=..., or give --base-url of a local server",
            code=ExitCode.AUTH,
        )
    return Address(url, key or "none", loopback)


def engine_address(url: str, environment: Mapping[str, str] | None = None) -> Address:
    """The address of a server that draws the policy's turns. It is one's own, so no call costs money, and its key is
    VLLM_API_KEY, where there is one. Raises `MuarlError` for an address that is not safe."""
    env = os.environ if environment is None else environment
    url = url.strip().rstrip("/")
    loopback = _on_this_machine(url, "--engine")
    return Address(url, env.get(ENGINE_KEY_VARIABLE, "").strip() or "none", loopback, own=True)


def _on_this_machine(url: str, where: str) -> bool:
    """Whether `url` is on this machine. Raises `MuarlError` for no base URL, and for another machine without TLS."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or parts.query:
        raise MuarlError(
            "this is no usable base URL",
            where=where,
            why="it must be http(s)://host[:port]/path, without a user name, password or query",
            next_step="for example http://127.0.0.1:8000/v1",
            code=ExitCode.CONFIG,
        )
    loopback = _is_loopback(host)
    if parts.scheme == "http" and not loopback:
        raise MuarlError(
            f"refusing to talk to {host} without TLS",
            where=where,
            why="plain http would show the key and every conversation to the network",
            next_step="use https://, or a tunnel to an address on 127.0.0.1",
            code=ExitCode.CONFIG,
        )
    return loopback


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name: anybody may own one that begins with 127
        return host == "localhost"
