"""What an engine is: token ids in, sampled ids with their log-probabilities out.

Invariant: `logprobs[t]` belongs to the distribution that token t was drawn from (temperature and top-p applied), and
`weight_version` names the weights that it was drawn with. A session names a conversation whose prompts grow at the
end, or part from the last one late (where a template forgets), so that an engine may keep what it has computed for what
they share; dropping a session changes speed, never a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Sampling:
    """How to draw one turn."""

    temperature: float
    """0 takes the likeliest token"""
    top_p: float
    max_tokens: int
    stop_ids: tuple[int, ...]
    """the turn ends with the first of these; it is part of the generation"""
    seed: int
    """of this turn: the same prompt and seed draw the same tokens, whoever else is in the batch"""


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """it drew a stop token"""
    LENGTH = "length"
    """it drew max_tokens tokens"""


@dataclass(frozen=True)
class Generation:
    """One sampled turn. `ids` includes the stop token where one was drawn; at temperature 0 the log-probabilities are
    those of the model itself (temperature 1)."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    weight_version: str


@dataclass(frozen=True)
class Capabilities:
    """What an engine declares that it can do; what it cannot do is refused before work starts."""

    token_ids: bool
    """takes prompt ids and returns sampled ids: without it nothing may be trained on"""
    logprobs: bool
    keeps_sessions: bool
    """work on a session's earlier turns is kept"""
    shares_weights: bool
    """runs on the trainer's own module: a sync moves nothing"""
    weight_sync: bool
    """new weights can be loaded while it runs"""


@runtime_checkable
class Engine(Protocol):
    """Generates turns for many sessions at once."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def weight_version(self) -> str: ...

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        """Draw one turn after `prompt_ids`, the conversation so far. Raises `InfraFault` where the engine fails."""
        ...

    def release(self, session: str) -> None:
        """Forget a session; unknown names are fine."""
        ...

    async def sync(self, weights: Mapping[str, Any] | None, version: str) -> None:
        """Use these weights from now on (None: the shared module has changed in place), under this version name."""
        ...

    def close(self) -> None: ...
