"""Served equals trained: a fixed prompt whose log-probabilities the trainer and the server must agree on.

A server that answers 200 to an update may still compute with old weights, in whole (an adapter that was never
delivered: two months of another project's training sampled its initial policy) or in part (vLLM on a CPU keeps its own
packed copy of a tied output layer when all weights are reloaded). Invariant: a mismatch is an error that names the
server and by how much it is off.

A model folder that muarl writes keeps its canary in a file, so that whoever plays it later through a server can ask
whether it is this model that is served.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import strict_json
from muarl_cli.records.files import replace_file

LENGTH = 48
TOLERANCE = {"fp32": 2e-3, "bf16": 0.15}
"""largest mean difference of log-probabilities, by the precision of the products: kernels round differently; weights of
another step of training are off by far more on random tokens"""
LOOSEST = max(TOLERANCE.values())
"""what no precision that a model is served in accounts for"""
NAME = "canary.json"
SCHEMA = "muarl.canary/1.0"
DECIMALS = 4
"""of the log-probabilities in a file: a twentieth of the least tolerance is left to rounding"""
_MAX_JSON = 1 << 16


@dataclass(frozen=True)
class Canary:
    """`ids` and the trainer's log-probability of each but the first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    dtype: str
    """of the products: fp32 or bf16"""

    @property
    def tolerance(self) -> float:
        """The largest distance that rounding in this precision accounts for."""
        return TOLERANCE[self.dtype]

    def distance(self, served: Sequence[float]) -> float:
        """The mean absolute difference to what a server says of the same tokens, in nats."""
        return sum(abs(a - b) for a, b in zip(self.logprobs, served, strict=True)) / len(self.logprobs)

    def compare(self, served: Sequence[float], where: str) -> float:
        """The distance; raises `MuarlError` where it exceeds the tolerance."""
        away = self.distance(served)
        if not away <= self.tolerance:
            raise MuarlError(
                "the server does not compute with the policy's weights",
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
    return Canary(ids, tuple(logprobs.tolist()), dtype)


def write_canary(folder: Path, canary: Canary) -> None:
    """Leave the canary of the model in `folder` beside it. Rounded, so that the last bits of one machine do not make
    another file on the next."""
    found = {
        "schema": SCHEMA,
        "dtype": canary.dtype,
        "ids": list(canary.ids),
        "logprobs": [round(logprob, DECIMALS) for logprob in canary.logprobs],
    }
    replace_file(folder / NAME, (strict_json.dumps(found) + "\n").encode("ascii"))


def read_canary(folder: Path) -> Canary | None:
    """The canary that was written with the model in `folder`; None where there is none. Raises `MuarlError` for a file
    that is none."""
    try:
        found = strict_json.loads((folder / NAME).read_bytes(), _MAX_JSON)
        if found["schema"].split(".")[:2] != SCHEMA.split(".")[:2]:
            raise ValueError(f"its format is {found['schema']!r}, not {SCHEMA}")
        canary = Canary(tuple(map(int, found["ids"])), tuple(map(float, found["logprobs"])), found["dtype"])
        if canary.dtype not in TOLERANCE or len(canary.logprobs) != len(canary.ids) - 1 or not canary.logprobs:
            raise ValueError(f"{len(canary.ids)} ids, {len(canary.logprobs)} log-probabilities, {canary.dtype!r}")
        return canary
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MuarlError(
            f"{NAME} is damaged",
            where=str(folder),
            why=f"{type(error).__name__}: {error}",
            next_step="remove the file; `muarl export model` writes a folder with a new one",
            code=ExitCode.BAD_DATA,
        ) from error
