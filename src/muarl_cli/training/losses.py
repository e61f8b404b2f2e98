"""Losses as pure functions on tensors: one value a token, never a mean, so that the caller divides once for the whole
step and the split into micro-batches cannot matter.

All arguments and results have shape (N,), N being the agent tokens of a micro-batch: tokens of users, tools and
templates are not there to be masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FARTHEST = 20.0
"""log-ratios beyond this are cut: e^20 is nonsense already, and e^89 is no fp32 number"""


@dataclass(frozen=True)
class PolicyTerms:
    """Loss a token, and where the clip took the gradient away."""

    loss: Tensor
    clipped_low: Tensor
    """bool: negative advantage, and the ratio already below 1 - clip_low"""
    clipped_high: Tensor
    """bool: positive advantage, and the ratio already above 1 + clip_high"""


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> PolicyTerms:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(logprobs - old_logprobs), a token.

    PPO (Schulman et al. 2017, eq. 7) with the two bounds of DAPO (Yu et al. 2025); GRPO (Shao et al. 2024) with outcome
    rewards when A is the group's; without dual clip. Only `logprobs` carries a gradient. Oracle:
    tests/training/test_losses.py, token by token.
    """
    ratio = _log_ratio(logprobs, old_logprobs).exp()
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = -torch.minimum(ratio * advantages, bounded * advantages)
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    return PolicyTerms(loss, low, high)


def k3(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """Estimate of KL(p || q) a token that was drawn from p: q/p - 1 - log(q/p), never negative.

    `logprobs` are p's, `other_logprobs` q's (Schulman, "Approximating KL divergence", 2020: k3; verl's `low_var_kl`).
    Oracle: tests/training/test_losses.py, token by token, and its mean over draws against the exact KL.
    """
    away = _log_ratio(other_logprobs, logprobs)
    return away.exp() - 1.0 - away


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] a token; logits (N, V), targets (N,)."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _log_ratio(upper: Tensor, lower: Tensor) -> Tensor:
    return (upper - lower).clamp(-_FARTHEST, _FARTHEST)
