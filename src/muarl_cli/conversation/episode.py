"""The episode: what is written for one conversation, and the id that the same work always gets.

Invariant: `volatile` holds everything that may differ between two runs of the same work (times, cost, host); all the
rest is reproducible, and an artifact's hash leaves `volatile` out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.hashing import digest

SCHEMA = "muarl.episode/1.0"


@dataclass(frozen=True)
class End:
    """Why it ended, and one line of detail for a person."""

    reason: EndReason
    detail: str = ""


@dataclass(frozen=True)
class StateHashes:
    """Fingerprints of the world: before, after, and of the gold end state ("" where there is none)."""

    initial: str = ""
    final: str = ""
    gold: str = ""


@dataclass(frozen=True)
class Key:
    """Names one piece of work: which task, in which run and step, which rollout of its group, from which seed."""

    run_id: str
    stage: str
    step: int
    scenario: str
    task_id: str
    task_hash: str
    split: str
    rollout: int
    seed: int
    attempt: int = 0

    @property
    def episode_id(self) -> str:
        """The same work always has the same id; a retried attempt of it as well."""
        return digest([self.run_id, self.stage, self.step, self.task_hash, self.rollout, self.seed], 24)

    @property
    def group_id(self) -> str:
        """Shared by the rollouts of one task in one step: what GRPO compares."""
        return digest([self.run_id, self.stage, self.step, self.task_hash], 16)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of an `Episode` that say which piece of work it is, for its constructor."""
        return {**asdict(self), "episode_id": self.episode_id, "group_id": self.group_id}


@dataclass(frozen=True)
class Episode:
    """One line of `episodes.jsonl`. Token rows go to a side file under the same id."""

    schema: str
    episode_id: str
    run_id: str
    stage: str
    step: int
    group_id: str
    rollout: int
    attempt: int
    scenario: str
    task_id: str
    task_hash: str
    split: str
    policy_hash: str
    seed: int
    agent: Mapping[str, Any]
    """kind, model, revision, weight_version (of the first turn), weight_versions (of each turn, where they differ)"""
    user: Mapping[str, Any]
    """backend, model, prompt_hash, persona, seed, injectors_fired"""
    events: tuple[Event, ...]
    end: End
    valid: bool
    reward: float | None
    """None where the episode is invalid"""
    state: StateHashes
    usage: Mapping[str, Any]
    """agent_tokens, user_tokens, prompt_tokens, turns, tool_calls"""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """what the scorer found beside the reward (state matched, what was communicated, bases)"""
    volatile: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[TokenRow, ...] = ()
    """in memory only; stored in `tokens-*.safetensors`"""
