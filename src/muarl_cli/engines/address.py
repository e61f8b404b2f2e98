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


@dataclass(frozen=True)
class Address:
    """Where to call. The key never shows in a repr, a log or an error."""

    url: str
    """base URL without a trailing slash"""
    key: str = field(repr=False)
    loopback: bool
    own: bool = False
    """a server of the user's own, on whatever machine"""

    @property
    def paid(self) -> bool:
        """Whether calls are taken to cost money: everywhere but on this machine and on one's own servers."""
        return not (self.loopback or self.own)

    @property
    def vendor(self) -> bool:
        return self.url == VENDOR


def resolve_address(
    base_url: str,
    environment: Mapping[str, str] | None = None,
    key_variable: str = KEY_VARIABLE,
    flag: str = "--base-url",
    own: bool = False,
) -> Address:
    """The address of a model: `base_url` if given (by `flag`), else OPENAI_BASE_URL, else the vendor's.

    Keys come from the environment only. `own`: who calls there pays for no calls. Raises `MuarlError` for an address
    that is not safe or needs a key that is not there.
    """
    env = os.environ if environment is None else environment
    url = (base_url or env.get(URL_VARIABLE, "") or VENDOR).strip().rstrip("/")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    loopback = _is_loopback(host)
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or parts.query:
        raise MuarlError(
            "this is no usable base URL",
            where=flag if base_url else URL_VARIABLE,
            why="it must be http(s)://host[:port]/path, without a user name, password or query",
            next_step="for example http://127.0.0.1:8000/v1",
            code=ExitCode.CONFIG,
        )
    if parts.scheme == "http" and not loopback:
        raise MuarlError(
            f"refusing to talk to {host} without TLS",
            where=flag if base_url else URL_VARIABLE,
            why="plain http would show the key and every conversation to the network",
            next_step="use https://, or a tunnel to an address on 127.0.0.1",
            code=ExitCode.CONFIG,
        )
    key = env.get(key_variable, "").strip()
    if not key and not loopback:
        raise MuarlError(
            f"no key for {host}",
            why=f"{key_variable} is not set",
            next_step=f"export {key_variable}=..., or give {flag} of a local server",
            code=ExitCode.AUTH,
        )
    return Address(url, key or "none", loopback, own)


def _is_loopback(host: str) -> bool:
    """Whether calls stay on this machine; 127.example.org is a name like any other."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
