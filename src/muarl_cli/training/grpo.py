"""The GRPO update: token rows with an advantage each become a few optimiser steps.

The loss of a step is one weighted sum over all agent tokens of all samples (`reduction.py`), so neither the split into
micro-batches nor what they share nor the order of the samples changes what is learned. Invariants: only agent tokens
have a gradient; a step whose loss or gradient is not finite is counted and never applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.training.attention import packed_attention
from muarl_cli.training.losses import (
    Loss,
    PolicyTerms,
    adaptive_clip,
    cispo_policy_loss,
    clipped_policy_loss,
    gspo_policy_loss,
    kl_divergence,
    off_policy_kept,
    sequence_gate,
    truncated_importance,
)
from muarl_cli.training.optim import MasterAdamW, Optimiser, lr_at, model_mode, require_same
from muarl_cli.training.packing import Packed, agent_tokens, micro_batches
from muarl_cli.training.reduction import token_weights


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
    loss: str
    """`losses.Loss`"""
    loss_length: int
    """the constant length of `dr_grpo`"""
    clip_low: float
    clip_high: float
    dual_clip: float
    """0 = off"""
    adaptive_clip: float
    """how much more room upwards a rare success gets; 0 = none"""
    kl_coef: float
    kl_estimator: str
    """`losses.Kl`"""
    importance_cap: float
    """truncated importance sampling between engine and trainer; 0 = off"""
    sequence_gate: tuple[float, float] | None
    """bounds of the geometric mean ratio between trainer and engine, beyond which an episode teaches nothing"""
    off_policy_mask: float
    """mean log-ratio engine over trainer beyond which an episode no longer lowers what it did; 0 = off"""
    temperature: float
    """the one the rows were sampled with: log-probabilities are those of softmax(logits / temperature)"""
    micro_batch_tokens: int
    updates_per_batch: int


@dataclass(frozen=True)
class Sample:
    """A token row of a valid episode, and what it was worth. Invalid episodes and dropped groups are no samples."""

    row: TokenRow
    advantage: float | tuple[float, ...]
    """one for the row, or one for each of its agent tokens (credit by turn)"""
    episode: int | None = None
    """numbers the episode, where it forked into several rows; None: the row is the whole episode"""
    success_rate: float = 0.0
    """the share of its group that succeeded; only adaptive clipping looks at it"""


class GrpoTrainer:
    """Trains `model` in place. `reference` is the model that the KL is measured against; with `kl_coef` above 0
    and none given, an adapter's base model is used, with the adapter off.

    `sampled_is_old`: the engine had the trainer's own weights, so that with one update a batch the sampled
    log-probabilities are the old policy's. Otherwise, and with more updates, the trainer's own at the start of `update`
    are: the clip then limits how far the policy moves and not how far engine and trainer differ.

    With an `optimiser` that is spread over several processes, each has a trainer, and all call the same methods with
    the same arguments; each computes its share of the samples, and all get the same metrics.
    """

    def __init__(
        self,
        model: Any,
        settings: GrpoSpec,
        reference: Any | None,
        sampled_is_old: bool = True,
        optimiser: Callable[[Any, float, tuple[float, float]], Optimiser] = MasterAdamW,
    ) -> None:
        if not settings.temperature > 0:
            raise ValueError("what was sampled at temperature 0 has no probability to raise; sample above 0")
        if settings.kl_coef > 0 and reference is None and not hasattr(model, "disable_adapter"):
            raise ValueError("kl_coef is above 0: give a reference model, or an adapter model")
        self._model, self._settings, self._reference = model, settings, reference
        self._sampled_is_old = sampled_is_old and settings.updates_per_batch == 1
        self._whole_episodes = (
            settings.loss == Loss.GSPO or settings.sequence_gate is not None or settings.off_policy_mask > 0
        )
        self.optimiser = optimiser(model, settings.weight_decay, settings.betas)
        self._reference_values = self.optimiser.values if reference is None else self.optimiser.frozen(reference)
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
        could be measured, averaged over the applied updates: loss, and as means over the agent tokens entropy (nats),
        kl (to the reference, where kl_coef > 0), clip_low, clip_high (shares of tokens), gated and masked (shares whose
        episode the sequence gate, or else the off-policy mask, stopped, where there is one); grad_norm (before
        clipping); and of the weights before the first update: mismatch_abs, mismatch_k3, mismatch_max between the
        log-probabilities that the engine sampled with and the trainer's. Without an agent token nothing is updated.
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
            norm = self.optimiser.apply(lr, spec.grad_clip) if math.isfinite(sums["loss"]) else None
            self.optimiser.discard()
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
        step = _Step.of(samples, self._settings)
        totals: dict[str, Tensor] = {}
        # Evaluation mode: the probabilities must be those that were sampled from. Only gradient checkpointing, which
        # transformers ties to training mode, asks for the other one.
        checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in self._model.modules())
        with model_mode(self._model, training=checkpointing), packed_attention(self._model):
            rows = [sample.row for sample in samples]
            units = step.episodes if self._whole_episodes else None
            budget = self._settings.micro_batch_tokens
            ranks = self.optimiser.ranks
            batches = micro_batches(rows, budget, self._device, units, rank=ranks.rank, size=ranks.size)
            for index, batch in enumerate(batches):
                loss, seen = self._terms(batch, index, step, memory)
                self.optimiser.backward(loss)
                totals["loss"] = totals.get("loss", 0.0) + loss.detach().double()
                for name, value in seen.items():
                    if name != "mismatch_max":
                        totals[name] = totals.get(name, 0.0) + value.double().sum() / step.tokens
                    elif len(value):
                        totals[name] = torch.maximum(totals.get(name, value.max()), value.max())
                    else:
                        totals.setdefault(name, torch.zeros((), device=self._device))
        return ranks.totals({name: float(value) for name, value in totals.items()}, largest=("mismatch_max",))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Optimiser and position, for an exact resume. The weights are not in it: they are the checkpoint's model
        folder. The tensors are live: write them before the next update."""
        return self.optimiser.state(), {
            "step": self._step,
            "skipped": self._skipped,
            "ranks": self.optimiser.ranks.size,
            "weights": self.optimiser.fingerprint(),
        }

    def load_state(self, tensors: Mapping[str, Tensor], json: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. The model must already have that moment's weights; `MuarlError` otherwise."""
        require_same(self.optimiser, json)
        self.optimiser.load_state(tensors)
        self._step, self._skipped = int(json["step"]), int(json["skipped"])

    def _terms(self, batch: Packed, index: int, step: _Step, memory: _Memory) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the step's loss, and what was seen on the way, all (N,)."""
        spec = self._settings
        values = self.optimiser.values(batch, spec.temperature)
        own = memory.own.setdefault(index, values.logprobs.detach())
        old = batch.sampled if self._sampled_is_old else own
        terms = self._policy_terms(values.logprobs, old, batch, step)
        away = own - batch.sampled
        seen = {
            "entropy": values.entropy,
            "clip_low": terms.clipped_low,
            "clip_high": terms.clipped_high,
            "mismatch_abs": away.abs(),
            "mismatch_k3": kl_divergence(batch.sampled, own),
            "mismatch_max": away.abs(),
        }
        each = terms.loss
        if spec.importance_cap:
            each = each * truncated_importance(own, batch.sampled, spec.importance_cap)
        if spec.sequence_gate is not None:
            passed = sequence_gate(own, batch.sampled, step.sequence(batch), *spec.sequence_gate)
            each, seen = each * passed, seen | {"gated": ~passed}
        else:
            passed = torch.ones_like(each, dtype=torch.bool)
        if spec.off_policy_mask:
            kept = off_policy_kept(
                own, batch.sampled, step.advantage(batch), step.sequence(batch), spec.off_policy_mask
            )
            each, seen = each * kept, seen | {"masked": passed & ~kept}  # each stopped token once
        if spec.kl_coef > 0:
            if index not in memory.reference:
                memory.reference[index] = self._reference_logprobs(batch)
            kl = kl_divergence(values.logprobs, memory.reference[index], spec.kl_estimator)
            each, seen = each + spec.kl_coef * kl, seen | {"kl": kl.detach()}
        return (each * step.of_tokens(step.weights, batch)).sum(), seen

    def _policy_terms(self, logprobs: Tensor, old: Tensor, batch: Packed, step: _Step) -> PolicyTerms:
        spec = self._settings
        advantages = step.advantage(batch)
        high: float | Tensor = spec.clip_high
        if spec.adaptive_clip:
            high = adaptive_clip(spec.clip_high, step.of_tokens(step.success, batch), spec.adaptive_clip)
        match Loss(spec.loss):
            case Loss.GSPO:
                return gspo_policy_loss(logprobs, old, advantages, step.sequence(batch), spec.clip_low, high)
            case Loss.CISPO:
                return cispo_policy_loss(logprobs, old, advantages, spec.clip_low, high)
            case _:
                return clipped_policy_loss(logprobs, old, advantages, spec.clip_low, high, spec.dual_clip)

    def _reference_logprobs(self, batch: Packed) -> Tensor:
        base = self._model if self._reference is None else self._reference
        adapter_off = self._model.disable_adapter() if self._reference is None else nullcontext()
        with torch.no_grad(), adapter_off, model_mode(base, training=False):
            return self._reference_values(batch, self._settings.temperature).logprobs


@dataclass(frozen=True)
class _Step:
    """What is known of a step's samples before the first forward pass; lists have an entry a sample."""

    tokens: int
    episodes: list[int]
    """the number of the sample's episode"""
    weights: list[float]
    """of one token in the loss"""
    success: list[float]
    advantages: list[list[float]]
    """one for each agent token"""

    @classmethod
    def of(cls, samples: Sequence[Sample], spec: GrpoSpec) -> _Step:
        counts = [agent_tokens(sample.row) for sample in samples]
        numbers: dict[Any, int] = {}
        episodes = [
            numbers.setdefault(("row", i) if sample.episode is None else sample.episode, len(numbers))
            for i, sample in enumerate(samples)
        ]
        sizes = [0] * len(numbers)
        for episode, count in zip(episodes, counts, strict=True):
            sizes[episode] += count
        weight = token_weights(spec.loss, sizes, spec.loss_length)
        advantages = [
            list(each) if isinstance(each := sample.advantage, tuple) else [each] * count
            for sample, count in zip(samples, counts, strict=True)
        ]
        if any(len(each) != count for each, count in zip(advantages, counts, strict=True)):
            raise ValueError("a sample needs one advantage, or one for each of its agent tokens")
        success = [sample.success_rate for sample in samples]
        return cls(sum(counts), episodes, [weight[e] for e in episodes], success, advantages)

    def of_tokens(self, values: Sequence[float], batch: Packed) -> Tensor:
        """A value a sample, at each of its tokens."""
        return torch.tensor(values, dtype=torch.float32, device=batch.item.device)[batch.item]

    def advantage(self, batch: Packed) -> Tensor:
        """A row's agent tokens stand together and in order, so that whole rows can be taken."""
        rows = torch.unique_consecutive(batch.item).tolist()
        values = [value for row in rows for value in self.advantages[row]]
        return torch.tensor(values, dtype=torch.float32, device=batch.item.device)

    def sequence(self, batch: Packed) -> Tensor:
        """The episode of each token, numbered from 0 within the micro-batch."""
        numbers = torch.tensor(self.episodes, device=batch.item.device)[batch.item]
        return torch.unique(numbers, return_inverse=True)[1]


@dataclass
class _Memory:
    """What the updates on one batch share, by micro-batch: the trainer's own log-probabilities before the first of
    them, and the reference's."""

    own: dict[int, Tensor] = field(default_factory=dict)
    reference: dict[int, Tensor] = field(default_factory=dict)
