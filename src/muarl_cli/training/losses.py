"""The losses of policy optimisation as pure functions over flat vectors of agent tokens.

Every function takes vectors of shape (N,), one entry an agent token of a micro-batch, and divides by `total`, the
number of agent tokens of the whole optimiser step over all micro-batches and ranks. Invariant: the sum over
micro-batches is the loss of the step, whatever the cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """The loss (a scalar with gradient) and how many tokens the clip silenced."""

    loss: Tensor
    clipped: Tensor
    """scalar count: tokens whose gradient the clip set to zero"""


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, clip_low: float, clip_high: float, total: int
) -> PolicyLoss:
    """Token-mean clipped surrogate: -1/total * sum_t min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) with
    r_t = exp(logprobs_t - old_t).

    Schulman et al. 2017 (arXiv:1707.06347, equation 7), with group-relative advantages (Shao et al. 2024,
    arXiv:2402.03300), the token mean of MUA-RL's setup and its bounds 0.2/0.2. Oracle test:
    tests/training/test_losses.py::test_policy_loss_equals_a_plain_python_oracle.
    """
    ratio = torch.exp(logprobs - old)
    plain = ratio * advantages
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    clipped = (bounded < plain).sum()
    return PolicyLoss(-torch.minimum(plain, bounded).sum() / total, clipped.detach())


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate (N,) of KL(policy || reference): exp(d) - d - 1 with d = reference - logprobs; never negative.

    Schulman 2020 ("Approximating KL divergence"), as used in GRPO (arXiv:2402.03300, equation 4). Oracle test:
    tests/training/test_losses.py::test_k3_is_zero_on_equality_and_estimates_the_divergence.
    """
    difference = reference - logprobs
    return torch.exp(difference) - difference - 1.0


def kl_loss(logprobs: Tensor, reference: Tensor, coefficient: float, total: int) -> Tensor:
    """coefficient / total * sum of `k3`: the KL term as part of the loss (MUA-RL: 0.001)."""
    return coefficient * k3(logprobs, reference).sum() / total
