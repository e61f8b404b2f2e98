"""The GRPO update: token rows with an advantage each become a few optimiser steps.

One token is one vote: the loss of a step is a sum over all agent tokens of all samples divided by their number, so
neither the split into micro-batches nor padding nor the order of the samples changes what is learned. Invariants: only
agent tokens have a gradient; a step whose loss or gradient is not finite is counted and never applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.training.batching import micro_batches
from muarl_cli.training.forward import Packed, agent_logprobs, agent_tokens
from muarl_cli.training.losses import clipped_policy_loss, k3
from muarl_cli.training.optim import MasterAdamW, lr_at, model_mode, require_weights, weights_fingerprint


@dataclass(frozen=True)
class GrpoSpec:
    """Settings of the update; names and meanings are those of `stages/rl_train.yaml`."""

    lr: float
    schedule: str
    total_steps: int
    """calls of `update` in the whole run; 0 = unknown"""
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    grad_clip: float
    clip_low: float
    clip_high: float
    kl_coef: float
    temperature: float
    """the one the rows were sampled with: log-probabilities are those of softmax(logits / temperature)"""
    micro_batch_tokens: int
    updates_per_batch: int


@dataclass(frozen=True)
class Sample:
    """A valid episode's token row and its advantage. Invalid episodes and dropped groups are not samples."""

    row: TokenRow
    advantage: float


class GrpoTrainer:
    """Trains `model` in place. `reference` is the model that the KL is measured against; with `kl_coef` above 0
    and none given, an adapter's base model is used, with the adapter off.

    `sampled_is_old`: the engine had the trainer's own weights, so that with one update a batch the sampled
    log-probabilities are the old policy's. Otherwise, and with more updates, the trainer's own at the start of `update`
    are: the clip then limits how far the policy moves and not how far engine and trainer differ.
    """

    def __init__(self, model: Any, settings: GrpoSpec, reference: Any | None, sampled_is_old: bool = True) -> None:
        if not settings.temperature > 0:
            raise ValueError("what was sampled at temperature 0 has no probability to raise; sample above 0")
        if settings.kl_coef > 0 and reference is None and not hasattr(model, "disable_adapter"):
            raise ValueError("kl_coef is above 0: give a reference model, or an adapter model")
        self._model, self._settings, self._reference = model, settings, reference
        self._sampled_is_old = sampled_is_old and settings.updates_per_batch == 1
        self._optimiser = MasterAdamW(model, settings.weight_decay, settings.betas)
        self._device = next(model.parameters()).device
        self._step = 0
        self._skipped = 0

    @property
    def step(self) -> int:
        """Calls of `update` so far."""
        return self._step

    def update(self, samples: Sequence[Sample], progress: float | None = None) -> dict[str, float]:
        """`updates_per_batch` optimiser steps, each over all samples; `progress` as in `lr_at`.

        Metrics: step, lr, samples, tokens, agent_tokens, updates (applied now), skipped (not applied, so far), and what
        could be measured, as means over the agent tokens and the applied updates: loss, policy_loss, entropy (nats),
        kl (k3 to the reference, where kl_coef > 0), clip_low, clip_high (shares of tokens); grad_norm (mean, before
        clipping); and of the weights before the first update: mismatch_abs, mismatch_k3, mismatch_max between the log-
        probabilities that the engine sampled with and the trainer's. Without an agent token nothing is updated.
        """
        spec = self._settings
        rows = [sample.row for sample in samples]
        count = sum(map(agent_tokens, rows))
        lr = lr_at(self._step, spec.total_steps, spec.lr, spec.schedule, spec.warmup_steps, progress)
        metrics: dict[str, float] = {
            "step": self._step + 1,
            "lr": lr,
            "samples": len(samples),
            "tokens": sum(len(row.ids) for row in rows),
            "agent_tokens": count,
        }
        applied: list[dict[str, float]] = []
        memory = _Memory()
        for number in range(spec.updates_per_batch if count else 0):
            sums = self.accumulate(samples, memory)
            mismatch = {name: sums.pop(name) for name in list(sums) if name.startswith("mismatch_")}
            if number == 0:
                metrics |= {name: value for name, value in mismatch.items() if math.isfinite(value)}
            norm = self._optimiser.apply(lr, spec.grad_clip) if math.isfinite(sums["loss"]) else None
            self._optimiser.discard()
            if norm is None:
                self._skipped += 1
                break  # the same samples on the same weights would fail in the same way
            applied.append(sums | {"grad_norm": norm})
        self._step += 1
        metrics |= {"updates": len(applied), "skipped": self._skipped}
        for name in applied[0] if applied else ():
            metrics[name] = math.fsum(sums[name] for sums in applied) / len(applied)
        return metrics

    def accumulate(self, samples: Sequence[Sample], memory: _Memory | None = None) -> dict[str, float]:
        """Add the gradient of one step's loss to the optimiser's, without taking the step; metrics as token means."""
        memory = _Memory() if memory is None else memory
        rows = [sample.row for sample in samples]
        count = sum(map(agent_tokens, rows))
        advantages = [sample.advantage for sample in samples]
        totals: dict[str, Tensor] = {}
        # Evaluation mode: the probabilities must be those that were sampled from. Only gradient checkpointing, which
        # transformers ties to training mode, asks for the other one.
        checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in self._model.modules())
        with model_mode(self._model, training=checkpointing):
            batches = micro_batches(rows, advantages, self._settings.micro_batch_tokens, self._device)
            for index, batch in enumerate(batches):
                loss, seen = self._terms(batch, index, memory)
                (loss.sum() / count).backward()
                self._optimiser.collect()
                for name, value in (seen | {"loss": loss.detach()}).items():
                    if name == "mismatch_max":
                        totals[name] = torch.maximum(totals.get(name, value.max()), value.max())
                    else:
                        totals[name] = totals.get(name, 0.0) + value.double().sum() / count
        return {name: float(value) for name, value in totals.items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Optimiser and position, for an exact resume. The weights are not in it: they are the checkpoint's model
        folder. The tensors are live: write them before the next update."""
        return self._optimiser.state(), {
            "step": self._step,
            "skipped": self._skipped,
            "weights": weights_fingerprint(self._model),
        }

    def load_state(self, tensors: Mapping[str, Tensor], json: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. The model must already have that moment's weights; `MuarlError` otherwise."""
        require_weights(self._model, json.get("weights"))
        self._optimiser.load_state(tensors)
        self._step, self._skipped = int(json["step"]), int(json["skipped"])

    def _terms(self, batch: Packed, index: int, memory: _Memory) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (N,) of one micro-batch, and what was seen on the way, all (N,)."""
        spec = self._settings
        logprobs, entropy = agent_logprobs(self._model, batch, spec.temperature)
        own = memory.own.setdefault(index, logprobs.detach())
        old = batch.sampled if self._sampled_is_old else own
        terms = clipped_policy_loss(logprobs, old, batch.weights, spec.clip_low, spec.clip_high)
        seen = {
            "policy_loss": terms.loss.detach(),
            "entropy": entropy,
            "clip_low": terms.clipped_low,
            "clip_high": terms.clipped_high,
            "mismatch_abs": (own - batch.sampled).abs(),
            "mismatch_k3": k3(batch.sampled, own),
            "mismatch_max": (own - batch.sampled).abs(),
        }
        if spec.kl_coef <= 0:
            return terms.loss, seen
        if index not in memory.reference:
            memory.reference[index] = self._reference_logprobs(batch)
        kl = k3(logprobs, memory.reference[index])
        return terms.loss + spec.kl_coef * kl, seen | {"kl": kl.detach()}

    def _reference_logprobs(self, batch: Packed) -> Tensor:
        base = self._model if self._reference is None else self._reference
        adapter_off = self._model.disable_adapter() if self._reference is None else nullcontext()
        with torch.no_grad(), adapter_off, model_mode(base, training=False):
            return agent_logprobs(base, batch, self._settings.temperature)[0]


@dataclass
class _Memory:
    """What the updates on one batch share, by micro-batch: the trainer's own log-probabilities before the first of
    them, and the reference's."""

    own: dict[int, Tensor] = field(default_factory=dict)
    reference: dict[int, Tensor] = field(default_factory=dict)
