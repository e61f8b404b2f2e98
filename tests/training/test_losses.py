"""Losses and their gradients against the formulae, token by token, in float64 on random batches with holes."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.training.losses import (
    adaptive_clip,
    clipped_policy_loss,
    gspo_policy_loss,
    kl_divergence,
    off_policy_kept,
    sequence_gate,
    truncated_importance,
)

LOW, HIGH, KL = 0.2, 0.28, 0.1


def _batch(seed: int) -> tuple[list[list[bool]], dict[str, list[list[float]]]]:
    """A mask with holes (6, 17) and random policy, old and reference log-probabilities; an advantage a row."""
    draw = random.Random(seed)
    mask = [[draw.random() < 0.6 for _ in range(17)] for _ in range(6)]
    logprobs = [[draw.uniform(-4, -0.1) for _ in range(17)] for _ in range(6)]
    values = {"policy": logprobs, "advantage": [[draw.gauss(0, 1)] * 17 for _ in range(6)]}
    for name, width in (("old", 0.5), ("reference", 1.0)):
        values[name] = [[value + draw.uniform(-width, width) for value in row] for row in logprobs]
    return mask, values


def _formula(mask: list[list[bool]], values: dict[str, list[list[float]]]) -> tuple[float, list[list[float]]]:
    """Token-mean loss and its derivative by each policy log-probability, written out with plain floats.

    TRL's `dapo` and verl's `token-mean` (both of them: -min(r A, clip(r) A) over masked tokens, divided by their
    number), plus beta times k3 (TRL `beta`, verl `low_var_kl`).
    """
    count = sum(map(sum, mask))
    total = 0.0
    gradient = [[0.0] * len(row) for row in mask]
    for b, row in enumerate(mask):
        for t, ours in enumerate(row):
            if not ours:
                continue
            advantage = values["advantage"][b][t]
            ratio = math.exp(values["policy"][b][t] - values["old"][b][t])
            clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
            away = values["reference"][b][t] - values["policy"][b][t]
            total += -min(ratio * advantage, clipped * advantage) + KL * (math.exp(away) - 1 - away)
            silent = clipped != ratio and clipped * advantage < ratio * advantage
            gradient[b][t] = ((0.0 if silent else -ratio * advantage) + KL * (1 - math.exp(away))) / count
    return total / count, gradient


@pytest.mark.parametrize("seed", range(5))
def test_policy_loss_and_gradient_equal_the_formula_token_by_token(seed: int) -> None:
    mask, values = _batch(seed)
    places = torch.tensor(mask)
    full = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    policy = full["policy"].requires_grad_()
    own, old, reference, advantage = (full[n][places] for n in ("policy", "old", "reference", "advantage"))
    terms = clipped_policy_loss(own, old, advantage, LOW, HIGH)
    loss = (terms.loss + KL * kl_divergence(own, reference)).sum() / int(places.sum())
    loss.backward()
    expected, gradient = _formula(mask, values)
    assert loss.item() == pytest.approx(expected, abs=1e-14)
    assert policy.grad is not None
    torch.testing.assert_close(policy.grad, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=1e-15)
    assert float(policy.grad[~places].abs().sum()) == 0.0


def test_the_clip_is_reported_where_it_takes_the_gradient_away() -> None:
    logprobs = torch.log(torch.tensor([0.5, 1.0, 1.5, 0.5, 1.5])).requires_grad_()
    advantages = torch.tensor([-1.0, 1.0, 1.0, 1.0, -1.0])
    terms = clipped_policy_loss(logprobs, torch.zeros(5), advantages, 0.2, 0.28)
    terms.loss.sum().backward()
    assert terms.clipped_low.tolist() == [True, False, False, False, False]
    assert terms.clipped_high.tolist() == [False, False, True, False, False]
    assert logprobs.grad is not None
    # The ones that moved in the wrong direction keep their whole gradient, -r A.
    assert logprobs.grad.tolist() == pytest.approx([0.0, -1.0, 0.0, -0.5, 1.5])


def test_k3_averages_to_the_divergence_and_is_never_negative() -> None:
    draw = torch.Generator().manual_seed(1)
    p, q = (torch.log_softmax(torch.randn(12, generator=draw, dtype=torch.float64), -1) for _ in range(2))
    each = kl_divergence(p, q)
    # The mean over draws from p, taken exactly: sum p (q/p - 1 - log q/p) = sum p log p/q.
    assert float((p.exp() * each).sum()) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-14)
    assert bool((each >= 0).all())
    assert kl_divergence(p, p).tolist() == [0.0] * 12


def test_absurd_ratios_stay_finite() -> None:
    far = torch.tensor([0.0, -1000.0], requires_grad=True)
    other = torch.tensor([-1000.0, 0.0])
    terms = clipped_policy_loss(far, other, torch.tensor([-1.0, 1.0]), 0.2, 0.28)
    loss = (terms.loss + kl_divergence(far, other)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert far.grad is not None and bool(torch.isfinite(far.grad).all())


def test_the_gate_stops_whole_episodes_and_no_token_of_another() -> None:
    own = torch.tensor([0.0, 0.0, 0.5, 0.3, 0.0])
    sampled = torch.tensor([0.0, 0.01, 0.0, 0.0, 0.0])
    sequence = torch.tensor([0, 0, 1, 1, 2])
    assert sequence_gate(own, sampled, sequence, 0.9, 1.1).tolist() == [True, True, False, False, True]
    assert sequence_gate(own, sampled, sequence, 0.9, math.exp(0.41)).all()


def test_the_off_policy_mask_stops_failures_that_the_policy_would_not_repeat_and_no_success() -> None:
    sampled = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    own = torch.tensor([-1.0, -1.4, -1.2, -1.2, -0.2, -0.2, -1.0])
    sequence = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    failed = torch.full((7,), -0.5)
    # means of log(sampled / own): 0.2, 0.2, -0.8, 0
    assert off_policy_kept(own, sampled, failed, sequence, 0.1).tolist() == [False] * 4 + [True] * 3
    assert off_policy_kept(own, sampled, -failed, sequence, 0.1).all()
    assert off_policy_kept(own, sampled, failed, sequence, 0.21).all()
    turns = torch.tensor([0.5, -0.5, 0.0, -0.5, -0.5, -0.5, -0.5])  # credit by turn: by token
    assert off_policy_kept(own, sampled, turns, sequence, 0.1).tolist() == [True, False, True, False, True, True, True]


@given(st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_the_off_policy_mask_is_its_formula_episode_by_episode(seed: int, bound: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    own, sampled = (-3 * torch.rand(20, generator=draw, dtype=torch.float64) for _ in range(2))
    sequence = torch.arange(20) // 4
    advantage = torch.randn(5, generator=draw, dtype=torch.float64)[sequence]
    kept = off_policy_kept(own, sampled, advantage, sequence, bound)
    for number in range(5):
        pairs = [
            (float(o), float(s)) for o, s in zip(own[sequence == number], sampled[sequence == number], strict=True)
        ]
        away = math.fsum(s - o for o, s in pairs) / len(pairs)
        failed = float(advantage[4 * number]) < 0
        assert set(kept[sequence == number].tolist()) == {not (failed and away > bound)}


def test_importance_is_capped_and_carries_no_gradient() -> None:
    own = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    weights = truncated_importance(own, torch.zeros(3), 2.0)
    assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-1)])
    assert not weights.requires_grad


def test_a_rare_success_gets_more_room_and_a_sure_one_none() -> None:
    rates = torch.tensor([0.0, 0.5, 1.0])
    assert adaptive_clip(0.2, rates, 0.5).tolist() == pytest.approx([0.3, 0.25, 0.2])
    logprobs = torch.log(torch.full((3,), 1.27)).requires_grad_()
    terms = clipped_policy_loss(logprobs, torch.zeros(3), torch.ones(3), 0.2, adaptive_clip(0.2, rates, 0.5))
    assert terms.clipped_high.tolist() == [False, True, True]


def test_dual_clip_bounds_the_loss_of_what_was_bad_and_became_likely() -> None:
    logprobs = torch.log(torch.tensor([5.0, 5.0, 2.0])).requires_grad_()
    advantages = torch.tensor([-1.0, 1.0, -1.0])
    bounded = clipped_policy_loss(logprobs, torch.zeros(3), advantages, 0.2, 0.2, dual_clip=3.0).loss
    assert bounded.tolist() == pytest.approx([3.0, -1.2, 2.0])
    bounded.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([0.0, 0.0, 2.0])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimators_of_the_divergence_are_their_formulae(estimator: str) -> None:
    p, q = torch.tensor([-1.0, -0.3]), torch.tensor([-0.6, -1.0])
    away = (p - q).tolist()
    expected = {
        "k1": away,
        "k2": [0.5 * d * d for d in away],
        "k3": [math.exp(-d) - 1 + d for d in away],
    }[estimator]
    assert kl_divergence(p, q, estimator).tolist() == pytest.approx(expected)


def test_one_ratio_an_episode_is_the_geometric_mean_of_its_tokens() -> None:
    draw = torch.Generator().manual_seed(3)
    logprobs, old = (torch.randn(5, generator=draw) * 0.1 for _ in range(2))
    sequence = torch.tensor([0, 0, 0, 1, 1])
    terms = gspo_policy_loss(logprobs, old, torch.ones(5), sequence, 0.5, 0.5)
    for members in ([0, 1, 2], [3, 4]):
        ratio = math.exp(float((logprobs - old)[members].mean()))
        assert terms.loss[members].tolist() == pytest.approx([-ratio] * len(members))
