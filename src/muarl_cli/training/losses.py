"""Losses as pure functions on tensors: one value a token, never a mean, so that the caller weighs the tokens of a whole
step once (`reduction.py`) and the split into micro-batches cannot matter.

All arguments and results have shape (N,), N being the agent tokens of a micro-batch: tokens of users, tools and
templates are not there to be masked. `sequence` (N,) numbers the episode that a token belongs to, from 0. Only
`logprobs` carries a gradient. Oracles: tests/training/test_losses.py (the formulae, token by token) and
tests/parity/test_losses.py (TRL 1.16.0 and verl 0.9.1: loss and gradient).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_FARTHEST = 20.0
"""log-ratios beyond this are cut: e^20 is nonsense already, and e^89 is no fp32 number"""


class Loss(StrEnum):
    """Which policy loss, and how its tokens are weighed (`reduction.py`)."""

    TOKEN_MEAN = "token_mean"
    """clipped ratios; every agent token of the step weighs the same (DAPO; verl `token-mean`, TRL `dapo`)"""
    SEQUENCE_MEAN = "sequence_mean"
    """clipped ratios; every episode weighs the same (GRPO as published; TRL `grpo`)"""
    DR_GRPO = "dr_grpo"
    """clipped ratios; sums over a constant length, so that a long failure is not cheap (Liu et al. 2025)"""
    GSPO = "gspo"
    """one ratio an episode, the geometric mean of its tokens'; every episode weighs the same (Zheng et al. 2025)"""
    CISPO = "cispo"
    """clipped importance weights as constants, a gradient for every token; token mean (MiniMax-M1 2025)"""


class Kl(StrEnum):
    """Estimators of the divergence from the reference, a token."""

    K1 = "k1"
    """log(p/q): unbiased as a number, but its gradient is noise of mean zero; for watching, not for training"""
    K2 = "k2"
    """half its square: the right gradient in expectation"""
    K3 = "k3"
    """q/p - 1 - log(q/p): unbiased and never negative; the paper's (verl `low_var_kl`)"""


@dataclass(frozen=True)
class PolicyTerms:
    """Loss a token, and where the clip took the gradient away."""

    loss: Tensor
    clipped_low: Tensor
    """bool: negative advantage, and the ratio already below 1 - clip_low"""
    clipped_high: Tensor
    """bool: positive advantage, and the ratio already above 1 + clip_high"""


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float | Tensor,
    dual_clip: float = 0.0,
) -> PolicyTerms:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(logprobs - old_logprobs), a token.

    PPO (Schulman et al. 2017, eq. 7) with the two bounds of DAPO (Yu et al. 2025); GRPO (Shao et al. 2024) with outcome
    rewards when A is the group's. With `dual_clip` c > 1 the loss of a negative advantage is at most -c A (Ye et al.
    2020, eq. 5), so that a token that became likelier by far is not pushed without bound; 0 = off. Oracles: the formula
    token by token, verl `vanilla`, TRL `dapo`/`grpo`/`dr_grpo`.
    """
    return _clipped(_log_ratio(logprobs, old_logprobs), advantages, clip_low, clip_high, dual_clip)


def gspo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    sequence: Tensor,
    clip_low: float,
    clip_high: float | Tensor,
) -> PolicyTerms:
    """The clipped loss with one ratio an episode: s = exp(mean over its tokens of logprobs - old_logprobs).

    GSPO (Zheng et al. 2025, eq. 5 and 7). All tokens of an episode must be in the call. Oracles: TRL with
    `importance_sampling_level="sequence"`, verl `gspo`.
    """
    each = sequence_mean(logprobs - old_logprobs, sequence)
    return _clipped(each.clamp(-_FARTHEST, _FARTHEST), advantages, clip_low, clip_high, 0.0)


def cispo_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float | Tensor
) -> PolicyTerms:
    """-w A logprobs with the constant w = clip(r, 1 - clip_low, 1 + clip_high), a token.

    CISPO (MiniMax-M1 2025, eq. 4 and 5). The peers define it differently: verl clamps to both bounds, as here; TRL caps
    the ratio at an absolute `epsilon_high` E and has no lower bound, which is clip_low=1, clip_high=E - 1 here.
    """
    ratio = _log_ratio(logprobs, old_logprobs).exp().detach()
    weight = _bounded(ratio, clip_low, clip_high)
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    return PolicyTerms(-weight * advantages * logprobs, low, high)


def kl_divergence(logprobs: Tensor, other_logprobs: Tensor, estimator: Kl | str = Kl.K3) -> Tensor:
    """Estimate of KL(p || q) a token that was drawn from p; `logprobs` are p's, `other_logprobs` q's.

    Schulman, "Approximating KL divergence", 2020. Oracles: the formulae, verl `kl_penalty`, TRL `beta`.
    """
    away = _log_ratio(other_logprobs, logprobs)
    match Kl(estimator):
        case Kl.K1:
            return -away
        case Kl.K2:
            return 0.5 * away.square()
        case Kl.K3:
            return away.exp() - 1.0 - away


def truncated_importance(own_logprobs: Tensor, sampled_logprobs: Tensor, cap: float) -> Tensor:
    """min(exp(own - sampled), cap) a token: what a draw of the engine is worth as a draw of the trainer's policy.

    Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy
    training"). No gradient. Oracles: TRL `importance_sampling_ratio`, verl `compute_rollout_correction_weights`.
    """
    return _log_ratio(own_logprobs.detach(), sampled_logprobs).exp().clamp(max=cap)


def sequence_gate(own_logprobs: Tensor, sampled_logprobs: Tensor, sequence: Tensor, low: float, high: float) -> Tensor:
    """bool (N,): whether the geometric mean of exp(own - sampled) over a token's episode lies within [low, high].

    An episode that the trainer finds far likelier or unlikelier than the engine did is no evidence about this policy:
    its tokens lose their gradient and keep their place in the denominator. All tokens of an episode must be in the
    call. Oracle: tests/training/test_losses.py.
    """
    mean = sequence_mean(own_logprobs.detach() - sampled_logprobs, sequence).clamp(-_FARTHEST, _FARTHEST).exp()
    return (mean >= low) & (mean <= high)


def off_policy_kept(
    own_logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, sequence: Tensor, bound: float
) -> Tensor:
    """bool (N,): false where A < 0 and the mean of (sampled - own) over a token's episode exceeds `bound`.

    The off-policy sequence mask of DeepSeek-V3.2 (2025, section 3.1): M = 0 if A < 0 and
    1/|o| sum_t log(p_sampled(o_t) / p_own(o_t)) > delta, else 1. What other weights drew and the present policy hardly
    would teaches little where it succeeded and much nonsense where it failed: only the failures leave. One-sided, where
    `sequence_gate` stops both signs on both sides. Tokens lose their gradient and keep their place in the denominator.
    All tokens of an episode must be in the call. Oracles: TRL `get_off_policy_mask`, tests/training/test_losses.py.
    """
    away = sequence_mean(sampled_logprobs - own_logprobs.detach(), sequence)
    return (advantages >= 0) | (away <= bound)


def adaptive_clip(clip_high: float, success_rate: Tensor, strength: float) -> Tensor:
    """The upper bound a token: clip_high (1 + strength (1 - success_rate)), success_rate (N,) being that of its group.

    A rare success may move the policy further than a common one. Inspired by the "adaptive clipping" that CoreCraft
    (2026) reports and does not define; this is our formula, not theirs. `strength` 0 is the fixed bound.
    """
    return clip_high * (1.0 + strength * (1.0 - success_rate))


def sequence_mean(values: Tensor, sequence: Tensor) -> Tensor:
    """(N,): the mean of `values` over the tokens of the same sequence, at each of its tokens."""
    count = int(sequence.max()) + 1 if sequence.numel() else 0
    sums = torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, sequence, values)
    return (sums / torch.bincount(sequence, minlength=count).clamp(min=1))[sequence]


def _clipped(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float | Tensor, dual_clip: float
) -> PolicyTerms:
    ratio = log_ratio.exp()
    bounded = _bounded(ratio, clip_low, clip_high)
    loss = -torch.minimum(ratio * advantages, bounded * advantages)
    if dual_clip > 0:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    return PolicyTerms(loss, low, high)


def _bounded(ratio: Tensor, clip_low: float, clip_high: float | Tensor) -> Tensor:
    floored = ratio.clamp(min=1.0 - clip_low)
    if isinstance(clip_high, Tensor):
        return torch.minimum(floored, 1.0 + clip_high)
    return floored.clamp(max=1.0 + clip_high)


def _log_ratio(upper: Tensor, lower: Tensor) -> Tensor:
    return (upper - lower).clamp(-_FARTHEST, _FARTHEST)
