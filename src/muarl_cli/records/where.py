"""`--where reward=1,end.reason=user_stop,usage.turns<=12`: which episodes of a log a stage reads.

Invariant: a filter that names a field no episode has is an error before anything is read, and names the nearest field;
a value that is absent or null satisfies only `=null` and `!=` comparisons.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import ExitCode, MuarlError

_PARTS: dict[str, tuple[str, ...]] = {
    "end": ("reason", "detail"),
    "state": ("initial", "final", "gold"),
    "agent": ("kind", "model", "revision", "weight_version"),
    "user": ("backend", "model", "prompt_hash", "persona", "seed"),
    "usage": ("agent_tokens", "user_tokens", "prompt_tokens", "turns", "tool_calls"),
}
_OPEN = ("detail", "verdict")
_NO_FILTER = ("events", "rows", "volatile", *_PARTS, *_OPEN)
_OPS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_CLAUSE = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(>=|<=|!=|==|>|<|=)(.*)", re.DOTALL)
FIELDS = (
    *(field.name for field in fields(Episode) if field.name not in _NO_FILTER),
    *(f"{part}.{name}" for part, names in _PARTS.items() for name in names),
    "accepted",
)
"""what a filter may name, beside anything below `detail.` and `verdict.`"""
NUMBERS = ("reward", "step", "rollout", "attempt", "seed", "user.seed", *(f"usage.{name}" for name in _PARTS["usage"]))
"""of these, the fields that are numbers: another value could match nothing, and is a slip"""


@dataclass(frozen=True)
class _Clause:
    path: str
    op: str
    text: str

    def holds(self, found: Any) -> bool:
        if self.text == "null":
            return (found is None) == (self.op in ("=", "=="))
        if found is None:
            return self.op == "!="
        if isinstance(found, bool):
            if self.op not in ("=", "==", "!="):
                return False
            return _OPS[self.op](found, _TRUTH.get(self.text.lower()))
        if isinstance(found, (int, float)):
            number = _number(self.text)
            return _OPS[self.op](found, number) if number is not None else self.op == "!="
        return _OPS[self.op](str(found), self.text)


@dataclass(frozen=True)
class Where:
    """A filter; call it with an episode (and its verdict, where `needs_verdict`)."""

    clauses: tuple[_Clause, ...]

    @property
    def needs_verdict(self) -> bool:
        return any(clause.path.split(".")[0] == "verdict" for clause in self.clauses)

    def __call__(self, episode: Episode, verdict: Mapping[str, Any] | None = None) -> bool:
        return all(clause.holds(_find(clause.path, episode, verdict or {})) for clause in self.clauses)


def parse_where(text: str) -> Where:
    """A comma list of `field op value` with `=`, `!=`, `<`, `<=`, `>`, `>=`; "" accepts all. Raises `MuarlError`."""
    return Where(tuple(_clause(part) for part in text.split(",") if part.strip()))


def _clause(part: str) -> _Clause:
    found = _CLAUSE.fullmatch(part)
    if not found:
        raise MuarlError(
            f"{part.strip()!r} is no filter",
            where="--where",
            next_step="write field=value, e.g. reward=1,valid=true,end.reason=user_stop,reward>=0.5",
            code=ExitCode.USAGE,
        )
    path, op, value = found.group(1), found.group(2), found.group(3).strip()
    root = path.split(".")[0]
    if path not in FIELDS and not (root in _OPEN and "." in path):
        near = get_close_matches(path, FIELDS, n=1, cutoff=0.3) or get_close_matches(
            path, [name.rsplit(".", 1)[-1] for name in FIELDS], n=1
        )
        whole = next((name for name in FIELDS if near and name.rsplit(".", 1)[-1] == near[0]), near[0] if near else "")
        raise MuarlError(
            f"episodes have no field {path!r}",
            where="--where",
            next_step=f"did you mean {whole!r}? " * bool(whole) + f"Fields: {', '.join(FIELDS)}, detail.*, verdict.*",
            code=ExitCode.USAGE,
        )
    if op in ("<", ">", "<=", ">=") and _number(value) is None:
        raise MuarlError(
            f"{part.strip()!r} compares with something that is no number",
            where="--where",
            next_step="use = or != for texts",
            code=ExitCode.USAGE,
        )
    if path in _TYPED and not (value == "null" or _TYPED[path](value)):
        raise MuarlError(
            f"{path} is never {value!r}",
            where="--where",
            next_step=f"{path}=1" if path in NUMBERS else f"{path}=true or {path}=false",
            code=ExitCode.USAGE,
        )
    return _Clause("verdict.accepted" if path == "accepted" else path, op, value)


def _truth(text: str) -> bool:
    return text.lower() in _TRUTH


def _number(text: str) -> float | int | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


_TYPED: dict[str, Callable[[str], bool]] = {
    **{name: lambda text: _number(text) is not None for name in NUMBERS},
    "valid": _truth,
    "accepted": _truth,
}
"""field to whether a text can be its value"""


def _find(path: str, episode: Episode, verdict: Mapping[str, Any]) -> Any:
    root, *rest = path.split(".")
    found: Any = verdict if root == "verdict" else getattr(episode, root)
    for name in rest:
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return found
