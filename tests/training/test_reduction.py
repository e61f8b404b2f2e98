"""Token weights: what each loss gives an episode, whatever its length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.training.losses import Loss
from muarl_cli.training.reduction import token_weights

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any)


@given(COUNTS, st.sampled_from(list(Loss)))
def test_what_an_episode_weighs_in_all_is_the_losss_own_rule(counts: list[int], loss: Loss) -> None:
    weights = token_weights(loss, counts, 100)
    whole = [weight * count for weight, count in zip(weights, counts, strict=True)]
    sequences = sum(1 for count in counts if count)
    expected = {
        Loss.TOKEN_MEAN: [count / sum(counts) for count in counts],
        Loss.CISPO: [count / sum(counts) for count in counts],
        Loss.SEQUENCE_MEAN: [(count > 0) / sequences for count in counts],
        Loss.GSPO: [(count > 0) / sequences for count in counts],
        Loss.DR_GRPO: [count / (sequences * 100) for count in counts],
    }[loss]
    assert whole == pytest.approx(expected)
    assert all(weight == 0 for weight, count in zip(weights, counts, strict=True) if not count)
