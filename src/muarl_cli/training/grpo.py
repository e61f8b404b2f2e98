"""GRPO: token rows and their advantages in, one batch of optimiser steps, metrics out.

The loss is the token mean of the clipped surrogate over all agent tokens of an optimiser step, plus a KL term where
one is asked for. The old log-probabilities are those the engine sampled with. Invariant: how a step is cut into
micro-batches, and the order of the rows in it, change nothing but rounding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.training.batching import micro_batches
from muarl_cli.training.forward import Packed, agent_logprobs, agent_tokens, compute_dtype, pack
from muarl_cli.training.losses import clipped_policy_loss, k3, kl_loss
from muarl_cli.training.optimiser import Optimiser, OptimiserSpec, TrainerState, learning_rate


@dataclass(frozen=True)
class GrpoSpec:
    """The settings of the updates."""

    optimiser: OptimiserSpec
    total_steps: int
    """optimiser steps of the whole run, for the schedule"""
    clip_low: float
    clip_high: float
    kl_coef: float
    """0: no reference model is run"""
    temperature: float
    """the one the rollouts were sampled with: log-probabilities must mean the same distribution"""
    micro_batch_tokens: int
    updates_per_batch: int
    """optimiser steps a batch of episodes is split into"""
    dtype: str
    seed: int


class GrpoTrainer:
    """Updates `model` in place. `reference` is the frozen model of the KL term, needed where `kl_coef` > 0."""

    def __init__(self, model: Any, spec: GrpoSpec, reference: Any | None = None) -> None:
        if spec.kl_coef and reference is None:
            raise MuarlError("kl_coef > 0 needs a reference model", code=ExitCode.CONFIG)
        self.model, self.spec, self.reference = model, spec, reference
        self.position = 0
        """optimiser steps done"""
        self._optimiser = Optimiser(model, spec.optimiser)
        self._device = next(model.parameters()).device

    def update(self, rows: Sequence[TokenRow], advantages: Sequence[float]) -> dict[str, float]:
        """Learn from one batch: `advantages[i]` belongs to every agent token of `rows[i]`.

        Metrics are token means over the batch: "loss", "entropy", "kl" (to the reference, where there is one), "mismatch"
        (k3 of engine against trainer before the first step), "ratio_max", "clip_share", and "grad_norm" (mean over the
        steps), "lr", "agent_tokens", "tokens", "updates". Without a row it does nothing and says so: {"updates": 0}.
        """
        usable = [(row, value) for row, value in zip(rows, advantages, strict=True) if agent_tokens(row)]
        if not usable:
            return {"updates": 0.0}
        random.Random(derive_seed(self.spec.seed, "update", self.position)).shuffle(usable)
        parts = min(self.spec.updates_per_batch, len(usable))
        sums: dict[str, float] = {}
        norms, lr = 0.0, 0.0
        for part in range(parts):
            found, norm, lr = self._step(usable[part::parts], first=part == 0)
            norms += norm
            for key, value in found.items():
                sums[key] = max(sums.get(key, 0.0), value) if key == "ratio_max" else sums.get(key, 0.0) + value
        tokens = sums.pop("agent_tokens")
        first_tokens = sums.pop("first_tokens")
        peak = sums.pop("ratio_max")
        mismatch = sums.pop("mismatch") / first_tokens
        loss = sums.pop("loss") / parts
        return {
            "loss": loss,
            **{key: value / tokens for key, value in sums.items()},
            "mismatch": mismatch,
            "ratio_max": peak,
            "grad_norm": norms / parts,
            "lr": lr,
            "agent_tokens": tokens,
            "tokens": float(sum(len(row.ids) for row, _ in usable)),
            "updates": float(parts),
        }

    def state(self) -> TrainerState:
        """Optimiser and position; the weights are the caller's to save (`tiny_model.save_model`)."""
        return TrainerState(self._optimiser.tensors(), {"kind": "grpo", "position": self.position})

    def load_state(self, state: TrainerState) -> None:
        """Go on where `state` was taken. The model must hold the weights of that moment."""
        if state.info.get("kind") != "grpo":
            raise MuarlError(
                "this training state belongs to another run",
                why=f"it is of kind {state.info.get('kind')}, not grpo",
                next_step="start in a new folder",
                code=ExitCode.BAD_DATA,
            )
        self._optimiser.load(state.tensors)
        self.position = int(state.info["position"])

    def _step(self, part: Sequence[tuple[TokenRow, float]], first: bool) -> tuple[dict[str, float], float, float]:
        """One optimiser step; returns sums over its tokens, the gradient norm and the rate."""
        self.model.train()
        self._optimiser.zero()
        total = sum(agent_tokens(row) for row, _ in part)
        sums: dict[str, float] = {"agent_tokens": total, "first_tokens": total if first else 0, "mismatch": 0.0}
        for group in micro_batches([len(row.ids) for row, _ in part], self.spec.micro_batch_tokens):
            rows, values = zip(*(part[index] for index in group), strict=True)
            batch = pack(rows, values, self._device)
            for key, value in self._micro_step(batch, total, first).items():
                sums[key] = max(sums.get(key, 0.0), value) if key == "ratio_max" else sums.get(key, 0.0) + value
        lr = learning_rate(self.spec.optimiser, self.position, self.spec.total_steps)
        norm = self._optimiser.step(lr)
        self.position += 1
        return sums, norm, lr

    def _micro_step(self, batch: Packed, total: int, first: bool) -> dict[str, float]:
        """Forward and backward of one micro-batch; returns sums over its tokens."""
        spec = self.spec
        with compute_dtype(spec.dtype, self._device.type):
            logprobs, entropy = agent_logprobs(self.model, batch, spec.temperature)
        policy = clipped_policy_loss(logprobs, batch.sampled, batch.weights, spec.clip_low, spec.clip_high, total)
        loss = policy.loss
        found = {"entropy": float(entropy.sum()), "clip_share": float(policy.clipped)}
        if spec.kl_coef and self.reference is not None:
            with torch.no_grad(), compute_dtype(spec.dtype, self._device.type):
                reference, _ = agent_logprobs(self.reference, batch, spec.temperature)
            loss = loss + kl_loss(logprobs, reference, spec.kl_coef, total)
            found["kl"] = float(k3(logprobs.detach(), reference).sum())
        loss.backward()
        change = logprobs.detach() - batch.sampled
        found["ratio_max"] = float(change.max().exp())
        if first:
            found["mismatch"] = float(k3(batch.sampled, logprobs.detach()).sum())
        return {**found, "loss": float(loss.detach())}
