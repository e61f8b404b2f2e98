"""The limits of an episode, and the order in which they are checked.

A limit of the agent (turns, tokens, repetition) makes a valid episode with reward 0; a limit of the budget (seconds)
makes an invalid one. Repetition is looked at before turns, so that the detail names the more telling cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from muarl_cli.hashing import canonical_json

NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one episode; the defaults stand in `stages/*.yaml`."""

    max_turns: int
    """counted turns as the paper counts them: user messages plus tool calls"""
    max_agent_tokens: int
    """sampled tokens in the whole episode; 0 where the agent does not count tokens"""
    max_identical_calls: int
    """the same call, with the same arguments, this many times in a row"""
    max_failed_calls: int
    """calls answered by an error, this many in a row"""
    max_seconds: float
    official: bool = False
    """whether the limits of a benchmark's own runner count instead, where it has some (see `Scenario`)"""


class Tally:
    """What has been used up so far; `verdict` says which limit of the agent was crossed ("" for none)."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.turns = 0
        self.tool_calls = 0
        self.agent_tokens = 0
        self.user_tokens = 0
        self.prompt_tokens = 0
        self.cost_usd = 0.0
        self._last_call = ""
        self._identical = 0
        self._failed = 0

    def count_call(self, name: str, arguments: object, ok: bool) -> None:
        """One executed (or refused) call of the agent."""
        self.turns += 1
        self.tool_calls += 1
        key = canonical_json([name, arguments])
        self._identical = self._identical + 1 if key == self._last_call else 1
        self._last_call = key
        self._failed = 0 if ok else self._failed + 1

    def count_user_turn(self) -> None:
        self.turns += 1

    def verdict(self) -> str:
        limits = self.limits
        if self._identical >= limits.max_identical_calls:
            return f"the same call {self._identical} times in a row"
        if self._failed >= limits.max_failed_calls:
            return f"{self._failed} failed calls in a row"
        if self.turns >= limits.max_turns:
            return f"{self.turns} counted turns"
        if limits.max_agent_tokens and self.agent_tokens >= limits.max_agent_tokens:
            return f"{self.agent_tokens} agent tokens"
        return ""
