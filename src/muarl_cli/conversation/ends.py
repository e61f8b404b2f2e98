"""Why an episode ended, and whether it counts: one table for every stage.

Outcome and fault are different things. An episode that died of the user model, a tool crash, the network or a spent
budget is *invalid*: it leaves the loss, the mean and the spread of its group. One in which the agent ran in circles is
valid and failed.
"""

from __future__ import annotations

from enum import StrEnum


class EndReason(StrEnum):
    """The end reasons of the episode log."""

    USER_STOP = "user_stop"
    """the user is done"""
    TRANSFER = "transfer"
    """the agent's terminal tool, or the user's transfer token"""
    OUT_OF_SCOPE = "out_of_scope"
    """the user said that the task cannot be served"""
    AGENT_STOP = "agent_stop"
    """the agent ended it where the scenario lets it"""
    LIMIT_AGENT = "limit_agent"
    """turns, agent tokens, context, identical calls in a row, failed calls in a row: reward 0"""
    LIMIT_BUDGET = "limit_budget"
    """seconds, money, cancelled"""
    USER_FAULT = "user_fault"
    """the simulator broke its contract and could not be mended"""
    TOOL_FAULT = "tool_fault"
    """a tool or world crashed on valid input, or hung"""
    INFRA_FAULT = "infra_fault"
    """endpoint, worker, disk"""

    @property
    def valid(self) -> bool:
        """Whether the episode counts (in the loss, the baseline, the score)."""
        return self not in _INVALID

    @property
    def graded(self) -> bool:
        """Whether the outcome decides the reward; a valid end that is not graded has reward 0."""
        return self.valid and self is not EndReason.LIMIT_AGENT


_INVALID = frozenset({EndReason.LIMIT_BUDGET, EndReason.USER_FAULT, EndReason.TOOL_FAULT, EndReason.INFRA_FAULT})
FAULTS = frozenset({EndReason.USER_FAULT, EndReason.TOOL_FAULT, EndReason.INFRA_FAULT})
