"""Supervised fine-tuning on token rows: the agent's tokens, and nothing else.

The loss of a step is the mean over all agent tokens of its batch, however it is cut into micro-batches. Invariant:
the state after step n, given back to a new trainer with the same rows and the weights of step n, gives the same step
n + 1 to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.batching import epoch_batches, micro_batches
from muarl_cli.training.forward import agent_tokens, compute_dtype, pack, selected_logits
from muarl_cli.training.optimiser import Optimiser, OptimiserSpec, TrainerState, learning_rate


@dataclass(frozen=True)
class SftSpec:
    """The settings of a fine-tuning."""

    optimiser: OptimiserSpec
    batch: int
    epochs: int
    max_steps: int
    """0: as many as the epochs take"""
    max_length: int
    """longer rows are cut at the end"""
    micro_batch_tokens: int
    """padded tokens that go through the model at once"""
    eval_every: int
    """steps; 0: at the end only"""
    dtype: str
    """"fp32", or "bf16" for products in bf16 over fp32 weights"""
    seed: int


class SftTrainer:
    """Trains `model` in place. Iterate over `steps()`; call `state()` between two steps to save."""

    def __init__(self, model: Any, spec: SftSpec, rows: Sequence[TokenRow], held_out: Sequence[TokenRow] = ()) -> None:
        self.model, self.spec = model, spec
        self.rows = _usable(rows, spec.max_length)
        self.held_out = _usable(held_out, spec.max_length)
        self.dropped = len(rows) + len(held_out) - len(self.rows) - len(self.held_out)
        """rows without an agent token within `max_length`"""
        if not self.rows:
            raise MuarlError(
                "there is nothing to learn from: no row has an agent token",
                next_step="look at --where, and at the share of accepted episodes",
                code=ExitCode.BAD_DATA,
            )
        self.position = 0
        """optimiser steps done"""
        self.best: dict[str, float] = {}
        """{"step", "eval_loss"} of the best evaluation so far; empty before the first"""
        self._lengths = [len(row.ids) for row in self.rows]
        self._per_epoch = -(-len(self.rows) // spec.batch)
        self._optimiser = Optimiser(model, spec.optimiser)
        self._device = next(model.parameters()).device

    @property
    def total_steps(self) -> int:
        return self.spec.max_steps or self.spec.epochs * self._per_epoch

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields {"step", "epoch", "loss", "lr", "grad_norm", "agent_tokens", "tokens"} a step, with
        "eval_loss", "eval_accuracy" and "best" (1.0 or 0.0) where it evaluated."""
        epoch, batches = -1, [[0]]
        while self.position < self.total_steps:
            if self.position // self._per_epoch != epoch:
                epoch = self.position // self._per_epoch
                batches = epoch_batches(self._lengths, self.spec.batch, self.spec.seed, epoch)
            metrics = self._step([self.rows[index] for index in batches[self.position % self._per_epoch]])
            self.position += 1
            metrics = {"step": self.position, "epoch": self.position / self._per_epoch, **metrics}
            last = self.position == self.total_steps
            if self.held_out and (last or (self.spec.eval_every and self.position % self.spec.eval_every == 0)):
                metrics.update(self._evaluate_and_compare())
            yield metrics

    def evaluate(self) -> dict[str, float]:
        """Token-mean loss and greedy accuracy on the held-out rows."""
        self.model.eval()
        loss = right = 0.0
        total = sum(agent_tokens(row) for row in self.held_out)
        with torch.no_grad():
            for group in micro_batches([len(row.ids) for row in self.held_out], self.spec.micro_batch_tokens):
                part, correct = self._forward([self.held_out[index] for index in group])
                loss += float(part)
                right += float(correct)
        return {"eval_loss": loss / total, "eval_accuracy": right / total}

    def state(self) -> TrainerState:
        """Optimiser and position; the weights are the caller's to save (`tiny_model.save_model`)."""
        info = {"kind": "sft", "position": self.position, "best": self.best, "rows": len(self.rows)}
        return TrainerState(self._optimiser.tensors(), info)

    def load_state(self, state: TrainerState) -> None:
        """Go on where `state` was taken. The model must hold the weights of that moment."""
        if state.info.get("kind") != "sft" or state.info.get("rows") != len(self.rows):
            raise MuarlError(
                "this training state belongs to another run",
                why=f"{state.info.get('kind')} on {state.info.get('rows')} rows, not sft on {len(self.rows)}",
                next_step="start in a new folder, or give the same data",
                code=ExitCode.BAD_DATA,
            )
        self._optimiser.load(state.tensors)
        self.position = int(state.info["position"])
        self.best = dict(state.info["best"])

    def _step(self, rows: Sequence[TokenRow]) -> dict[str, float]:
        self.model.train()
        self._optimiser.zero()
        total = sum(agent_tokens(row) for row in rows)
        loss = 0.0
        for group in micro_batches([len(row.ids) for row in rows], self.spec.micro_batch_tokens):
            part, _ = self._forward([rows[index] for index in group])
            (part / total).backward()
            loss += float(part.detach())
        lr = learning_rate(self.spec.optimiser, self.position, self.total_steps)
        norm = self._optimiser.step(lr)
        tokens = sum(len(row.ids) for row in rows)
        return {"loss": loss / total, "lr": lr, "grad_norm": norm, "agent_tokens": total, "tokens": tokens}

    def _forward(self, rows: Sequence[TokenRow]) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed cross-entropy of the agent tokens, and how many of them are the likeliest token."""
        batch = pack(rows, [0.0] * len(rows), self._device)
        with compute_dtype(self.spec.dtype, self._device.type):
            logits = selected_logits(self.model, batch.ids, batch.rows, batch.columns - 1)
        loss = functional.cross_entropy(logits, batch.targets, reduction="sum")
        return loss, (logits.detach().argmax(-1) == batch.targets).sum()

    def _evaluate_and_compare(self) -> dict[str, float]:
        found = self.evaluate()
        better = not self.best or found["eval_loss"] < self.best["eval_loss"]
        if better:
            self.best = {"step": self.position, "eval_loss": found["eval_loss"]}
        return {**found, "best": float(better)}


def _usable(rows: Sequence[TokenRow], max_length: int) -> list[TokenRow]:
    cut = [TokenRow(r.ids[:max_length], r.owners[:max_length], r.logprobs[:max_length]) for r in rows]
    return [row for row in cut if agent_tokens(row)]
