"""How much each agent token weighs in the loss of an optimiser step: loss = sum of weight x token loss over the step.

The weights are known before the first forward pass and add up over the whole step, so micro-batches, padding, packing,
the order of the samples, the number of rows that an episode forks into and the number of processes change nothing.
A sequence is an episode, all its rows together.
"""

from __future__ import annotations

from collections.abc import Sequence

from muarl_cli.training.losses import Loss


def token_weights(loss: Loss | str, counts: Sequence[int], constant_length: int) -> list[float]:
    """The weight of one token of each episode; `counts` are the agent tokens an episode (of the whole step, all
    processes), `constant_length` the L of Dr.GRPO.

    token mean (also CISPO): 1 / sum(counts); sequence mean (also GSPO): 1 / (S counts[i]) over the S episodes that have
    agent tokens; Dr.GRPO: 1 / (S L). Oracles: tests/parity/test_losses.py.
    """
    total, sequences = sum(counts), sum(1 for count in counts if count)
    match Loss(loss):
        case Loss.TOKEN_MEAN | Loss.CISPO:
            return [1.0 / total if count else 0.0 for count in counts]
        case Loss.SEQUENCE_MEAN | Loss.GSPO:
            return [1.0 / (sequences * count) if count else 0.0 for count in counts]
        case Loss.DR_GRPO:
            return [1.0 / (sequences * constant_length) if count else 0.0 for count in counts]
