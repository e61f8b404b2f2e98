"""What a server's answer means: JSON to use, a trouble that passes, a prompt that does not fit, or the end of the run.

Invariant: every answer is one of the four, whatever its shape, and no message of ours repeats the key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from muarl_cli.engines.address import KEY_VARIABLE, Address
from muarl_cli.errors import ExitCode, MuarlError

MAX_REPLY_BYTES = 32 * 1024 * 1024


class ContextOverflow(Exception):
    """The conversation no longer fits the model; not a fault of the wire, so the caller decides whose it is."""


class Filtered(Exception):
    """The address refused the prompt by its content filter (a 400 that is no mistake of the request)."""


class Passing(Exception):
    """Worth another try, after `after` seconds where the server asked for that; `too_many` where it wants fewer."""

    def __init__(
        self, why: str, after: float | None = None, maybe_billed: bool = False, too_many: bool = False
    ) -> None:
        super().__init__(why)
        self.after, self.maybe_billed, self.too_many = after, maybe_billed, too_many


class Refused(MuarlError):
    """The key is refused, or the address or the model is not there: no use for any request of the run."""


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a reply with status 200; raises `Passing` for anything else."""
    if len(raw) > MAX_REPLY_BYTES:
        raise Passing("reply too large", maybe_billed=True)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Passing("reply is not JSON", maybe_billed=True) from error
    if not isinstance(value, dict):
        raise Passing("reply is not a JSON object", maybe_billed=True)
    if "error" in value and "choices" not in value and "data" not in value:
        raise Passing("an error inside a reply with status 200", maybe_billed=True)
    return value


def error_of(raw: bytes) -> Mapping[str, Any]:
    """The error object of a refusal; servers differ, so text is accepted too."""
    try:
        value = json.loads(raw[:65_536])
    except (ValueError, RecursionError):
        return {"message": raw[:300].decode("utf-8", "replace")}
    if isinstance(value, dict):
        inner = value.get("error", value)
        return inner if isinstance(inner, dict) else {"message": str(inner)}
    return {"message": str(value)[:300]}


def raise_for(status: int, headers: Mapping[str, str], error: Mapping[str, Any], address: Address, path: str) -> None:
    """Raise what a status other than 200 means: `Passing`, `ContextOverflow`, `Filtered` or a `MuarlError`."""
    message = " ".join(str(error.get("message", "")).split())[:300].replace(address.key, "***")
    code = str(error.get("code", ""))
    where = address.url + path
    if status == 429 and code != "insufficient_quota":
        raise Passing("429 too many requests", after=_retry_after(headers), too_many=True)
    if status in (408, 409, 425) or status >= 500:
        raise Passing(f"status {status}", after=_retry_after(headers))
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
        raise Refused(
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
    raise Refused(
        f"the address or the model does not exist (status {status})",
        where=where,
        why=message,
        next_step="check the base URL (it usually ends in /v1) and the model's name; it may have been retired",
        code=ExitCode.UNAVAILABLE,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, bounded to ten minutes; None where it does not ask, or not in a readable way."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except KeyError:
            continue
        except ValueError:
            seconds = _until(headers[name])
        if 0 <= seconds < float("inf"):
            return min(seconds, 600.0)
    return None


def _until(date: str) -> float:
    """Seconds from now to a date as HTTP writes it; NaN for what is none."""
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, TypeError):
        return float("nan")
