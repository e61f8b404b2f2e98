"""Served equals trained: a fixed prompt whose log-probabilities the trainer and the server must agree on.

A server that answers 200 to an update may still compute with old weights, in whole (an adapter that was never
delivered: two months of another project's training sampled its initial policy) or in part (vLLM on a CPU keeps its own
packed copy of a tied output layer when all weights are reloaded). Invariant: a mismatch is an error that names the
server and by how much it is off.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError

LENGTH = 48
TOLERANCE = {"fp32": 2e-3, "bf16": 0.15}
"""largest mean difference of log-probabilities, by the precision of the products: kernels round differently; weights of
another step of training are off by far more on random tokens"""


@dataclass(frozen=True)
class Canary:
    """`ids` and the trainer's log-probability of each but the first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    tolerance: float

    def compare(self, served: Sequence[float], where: str) -> float:
        """The mean absolute difference; raises `MuarlError` where it exceeds the tolerance."""
        away = sum(abs(a - b) for a, b in zip(self.logprobs, served, strict=True)) / len(self.logprobs)
        if not away <= self.tolerance:
            raise MuarlError(
                "the server does not compute with the trainer's weights",
                where=where,
                why=f"on a fixed prompt its log-probabilities are off by {away:.4f} on average, "
                f"more than {self.tolerance:g}",
                next_step="start it with `muarl serve MODEL` on the same model folder and precision; "
                "if it persists, its weight update is broken",
                code=ExitCode.UNAVAILABLE,
            )
        return away


def canary_of(model: Any, dtype: str, seed: int = 0) -> Canary:
    """The trainer's own view of a random prompt; `model` in evaluation mode, its present weights."""
    import torch

    draw = random.Random(seed)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = tuple(draw.randrange(vocabulary) for _ in range(LENGTH))
    device = model.get_input_embeddings().weight.device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1].float()
    finally:
        model.train(training)
    targets = torch.tensor(ids[1:], device=device)
    logprobs = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
    return Canary(ids, tuple(logprobs.tolist()), TOLERANCE[dtype])
