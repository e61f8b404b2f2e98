"""The small grammars of the command line: task sets, mixtures of parties, `key=value`.

Invariant: what parses here means the same in every stage; what does not parse is a `MuarlError` that shows the form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError

SOURCES = ("builtin", "mcp", "tau1", "tau2", "bfcl", "acebench")
"""named sources of tasks; any other source is the path of a domain folder"""
BENCHMARKS = ("tau1", "tau2", "bfcl", "acebench")
WRITTEN_USERS = ("bfcl",)
"""benchmarks whose user is part of the data: no model words it"""
SCRIPTED_AGENTS = ("oracle", "careful", "hasty", "do-nothing", "transfer-only", "gold-replay")
USER_BACKENDS = ("scripted", "llm", "hf", "replay", "human")
HUMAN = "human"
"""an agent that is played at the terminal (`muarl play --as agent`)"""
INJECTORS = (
    "ambiguity",
    "mind_change_before_confirm",
    "mind_change_after_write",
    "refuse_once",
    "wrong_then_correct",
    "tangent",
    "impatience",
    "fragments",
    "interrupt",
    "unavailable_service",
    "adversarial",
)
"""what can make the scripted user harder (`users.injectors`)"""
WORLD_INJECTORS = (
    "latency",
    "tool_5xx",
    "permission_denied",
    "stale_read",
    "schema_drift",
    "odd_reply",
    "partial_write",
    "planted_text",
)
"""faults that tools can be made to show; `worlds/injectors.py` has what each one does"""
LOCAL_VLLM = "vllm"
"""an engine in this process, instead of the address of a server"""
AUTO = "auto"
"""a user backend that follows from the tasks: a policy on a benchmark needs a model, everything else is scripted"""


@dataclass(frozen=True)
class TaskRef:
    """A task set `source:scenario:split`, or with `id` one task of it."""

    source: str
    scenario: str
    split: str
    id: str = ""

    @property
    def is_path(self) -> bool:
        """Whether the source is a domain folder and no named one."""
        return self.source not in SOURCES

    def __str__(self) -> str:
        return ":".join(part for part in (self.source, self.scenario, self.split, self.id) if part)


def parse_task_ref(text: str) -> TaskRef:
    """`source:scenario:split[:id]`; an id may itself hold colons. Raises `MuarlError` (usage)."""
    parts = text.strip().split(":", 3)
    if len(parts) < 3 or not all(parts):
        raise MuarlError(
            f"{text!r} names no task set",
            why="a task set is source:scenario:split, one task is source:scenario:split:id",
            next_step=f"for example builtin:retail:test; sources: {', '.join(SOURCES)} or a folder",
        )
    source = parts[0]
    if source not in SOURCES and not any(mark in source for mark in "/.\\"):
        near = get_close_matches(source, SOURCES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise MuarlError(
            f"unknown task source {source!r} in {text!r}",
            next_step=f"{hint}sources: {', '.join(SOURCES)}, or the path of a domain folder such as ./my_domain",
        )
    return TaskRef(*parts)


def parse_mixture(text: str, allowed: Collection[str], what: str) -> tuple[tuple[str, float], ...]:
    """`name` or `name=share,name=share` to ((name, share), ...); shares are positive and are scaled to sum to 1.

    Raises `MuarlError` for an unknown name, a name given twice, or a share that is no positive number.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs: list[tuple[str, float]] = []
    for part in parts:
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name not in allowed:
            near = get_close_matches(name, list(allowed), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise MuarlError(f"unknown {what} {name!r}", next_step=f"{hint}one of: {', '.join(allowed)}")
        if name in dict(pairs):
            raise MuarlError(f"{what} {name!r} is named twice in {text!r}")
        if not equals and len(parts) > 1:
            raise _bad_share(text, what)
        pairs.append((name, _share(share, text, what) if equals else 1.0))
    if not pairs:
        raise MuarlError(f"no {what} is named", next_step=f"one of: {', '.join(allowed)}")
    total = sum(share for _, share in pairs)
    return tuple((name, share / total) for name, share in pairs)


def parse_rates(text: str) -> dict[str, float]:
    """`name=rate,name=rate` to rates in (0, 1] by world injector; empty text = none. Raises `MuarlError`."""
    rates: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, _, rate = (piece.strip() for piece in part.partition("="))
        if name not in WORLD_INJECTORS:
            raise MuarlError(f"unknown world injector {name!r}", next_step=nearest(name, WORLD_INJECTORS))
        if name in rates:
            raise MuarlError(f"the world injector {name!r} is named twice in {text!r}")
        share = _share(rate, text, "world injector")
        if share > 1:
            raise MuarlError(
                f"the rate of {name} is {rate}; at most 1", next_step="for example latency=0.1,tool_5xx=0.05"
            )
        rates[name] = share
    return rates


def parse_engines(texts: Sequence[str]) -> dict[str, Any] | None:
    """The options of vLLM in this process where the engines are `vllm` or `vllm?option=value&option=value`; None where
    they are addresses of servers. Values are read as YAML reads them. Raises `MuarlError`."""
    from muarl_cli.settings.yamlio import load_text

    local = [text for text in texts if text.partition("?")[0] == LOCAL_VLLM]
    if not local:
        return None
    if len(texts) > 1:
        raise MuarlError(
            f"{local[0]!r} is one engine, in this process, and there are others beside it: {', '.join(texts)}",
            next_step="name it alone, or name servers only; on several GPUs: vllm?tensor_parallel_size=2",
            code=ExitCode.CONFIG,
        )
    options: dict[str, Any] = {}
    for part in filter(None, local[0].partition("?")[2].split("&")):
        name, equals, value = part.partition("=")
        if not name.isidentifier() or not equals or name in options:
            raise MuarlError(
                f"{part!r} in {local[0]!r} is no option of vLLM",
                next_step="for example vllm?gpu_memory_utilization=0.5&tensor_parallel_size=2",
                code=ExitCode.CONFIG,
            )
        options[name] = load_text(value, local[0])
    return options


def _share(text: str, whole: str, what: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise _bad_share(whole, what) from None
    if not 0 < share < float("inf"):
        raise _bad_share(whole, what)
    return share


def _bad_share(text: str, what: str) -> MuarlError:
    return MuarlError(
        f"{text!r} is no mixture of {what}s",
        why="each part needs a positive share",
        next_step="write it as name=0.6,other=0.4",
    )


def split_override(text: str) -> tuple[str, str]:
    """`dotted.key=value` to (key, value text). Raises `MuarlError` (usage) where there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise MuarlError(
            f"{text!r} is neither a flag nor a setting",
            why="what stands behind the flags must be key=value",
            next_step="for example in_flight=4 or user.temperature=0",
        )
    return key.strip(), value


def nearest(name: str, known: Sequence[str]) -> str:
    """`did you mean ...?` for the known name that is closest, else the list of names in short."""
    last = name.rsplit(".", 1)[-1]
    near = get_close_matches(name, known, n=1, cutoff=0.85)
    near = near or [key for key in known if key.rsplit(".", 1)[-1] == last]  # without its group, or in another
    near = near or get_close_matches(name, known, n=1, cutoff=0.55)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"


def unknown_key(name: str, known: Sequence[str], where: str) -> MuarlError:
    """The error for a setting that does not exist."""
    return MuarlError(f"unknown setting {name!r}", where=where, next_step=nearest(name, known), code=ExitCode.CONFIG)
