"""Supervised fine-tuning on token rows: likelihood of the agent's tokens, one mean over all of a step's tokens.

Invariant: step n is a pure function of (weights, optimiser state, rows, settings, seed, n). The order of the rows
depends on (seed, epoch) alone and random layers draw from (seed, n), so that a run that was cut anywhere goes on to the
same bits (on a CPU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.training.attention import packed_attention
from muarl_cli.training.optim import MasterAdamW, Optimiser, lr_at, model_mode, require_same
from muarl_cli.training.order import epoch_order, rows_digest
from muarl_cli.training.packing import agent_tokens, micro_batches
from muarl_cli.training.steps import sft_steps, steps_an_epoch


@dataclass(frozen=True)
class SftSpec:
    """Settings of fine-tuning; names and meanings are those of `stages/sft.yaml`."""

    batch: int
    """rows an optimiser step"""
    micro_batch_tokens: int
    epochs: float
    """0 = by max_steps"""
    max_steps: int
    """0 = by epochs; both 0 = until the caller stops (a time box)"""
    lr: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    grad_clip: float


class Position(NamedTuple):
    """Where training stands: the epoch of the next step, and the steps taken."""

    epoch: int
    step: int


class SftTrainer:
    """Trains `model` in place on `rows`. `left_out` counts rows without a single agent token, which are not used.

    With an `optimiser` that is spread over several processes, each has a trainer, and all call the same methods with
    the same arguments.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[TokenRow],
        settings: SftSpec,
        seed: int,
        optimiser: Callable[[Any, float, tuple[float, float]], Optimiser] = MasterAdamW,
    ) -> None:
        self._model, self._settings, self._seed = model, settings, seed
        self._rows = [row for row in rows if agent_tokens(row)]
        self.left_out = len(rows) - len(self._rows)
        if not self._rows:
            raise MuarlError(
                "there is nothing to learn from",
                why=f"none of the {len(rows)} token rows holds a token of the agent",
                next_step="name episodes in which the agent said or did something",
                code=ExitCode.BAD_DATA,
            )
        self.optimiser = optimiser(model, settings.weight_decay, settings.betas)
        self._device = next(model.parameters()).device
        self._digest = rows_digest(self._rows)
        self._order: tuple[int, list[int]] = (-1, [])
        self._step = 0
        self._skipped = 0
        self.steps_per_epoch = steps_an_epoch(len(self._rows), settings.batch)
        self.total_steps = sft_steps(len(self._rows), settings.batch, settings.epochs, settings.max_steps)
        """optimiser steps in all; 0 where only the caller knows when to stop"""

    @property
    def position(self) -> Position:
        return Position(self._step // self.steps_per_epoch, self._step)

    @property
    def done(self) -> bool:
        return 0 < self.total_steps <= self._step

    def step(self, progress: float | None = None) -> dict[str, float]:
        """One optimiser step; `progress` in 0..1 sets the course of the learning rate in a time-boxed run.

        Metrics: step, epoch, lr, tokens, agent_tokens, skipped (steps so far that were not applied because loss or
        gradient was not finite), and, unless that happened now: loss (nats a token), accuracy (share of agent tokens
        that were the likeliest), grad_norm (before clipping). Raises RuntimeError when training is done.
        """
        if self.done:
            raise RuntimeError(f"all {self.total_steps} steps are taken")
        spec = self._settings
        lr = lr_at(self._step, self.total_steps, spec.lr, spec.schedule, spec.warmup_steps, progress)
        rows = self._next_rows()
        count = sum(map(agent_tokens, rows))
        with self._own_random_stream(), model_mode(self._model, training=True):
            loss, hits = self._pass(rows, count)
        norm = self.optimiser.apply(lr, spec.grad_clip) if math.isfinite(loss) else None
        self.optimiser.discard()
        self._step += 1
        self._skipped += norm is None
        metrics: dict[str, float] = {
            "step": self._step,
            "epoch": self._step / self.steps_per_epoch,
            "lr": lr,
            "tokens": sum(len(row.ids) for row in rows),
            "agent_tokens": count,
            "skipped": self._skipped,
        }
        if norm is not None:
            metrics |= {"loss": loss, "accuracy": hits, "grad_norm": norm}
        return metrics

    def eval_loss(self, rows: Sequence[TokenRow]) -> dict[str, float]:
        """Loss (nats) and accuracy over the agent tokens of `rows`, in evaluation mode, and their number."""
        count = sum(map(agent_tokens, rows))
        if not count:
            raise ValueError("no agent tokens to evaluate on")
        with torch.no_grad(), model_mode(self._model, training=False):
            loss, accuracy = self._pass(rows, count)
        return {"loss": loss, "accuracy": accuracy, "agent_tokens": count}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Optimiser and position, for an exact resume. The weights are not in it: they are the checkpoint's model
        folder. The tensors are live: write them before the next step."""
        return self.optimiser.state(), {
            "step": self._step,
            "skipped": self._skipped,
            "seed": self._seed,
            "batch": self._settings.batch,
            "rows": self._digest,
            "ranks": self.optimiser.ranks.size,
            "weights": self.optimiser.fingerprint(),
        }

    def load_state(self, tensors: Mapping[str, Tensor], json: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. The model must already have that moment's weights, and the rows, the seed and
        the batch must be the same: `MuarlError` otherwise, since the run would silently be another one."""
        now = {"seed": self._seed, "batch": self._settings.batch, "rows": self._digest}
        changed = [name for name, value in now.items() if json.get(name) != value]
        if changed:
            raise MuarlError(
                f"this run was started with other {' and '.join(changed)}",
                why="the order of the rows would not be the one that was begun",
                next_step="give the same data, seed and batch to resume, or start a new run folder",
                code=ExitCode.CONFIG,
            )
        require_same(self.optimiser, json)
        self.optimiser.load_state(tensors)
        self._step, self._skipped = int(json["step"]), int(json["skipped"])

    def _next_rows(self) -> list[TokenRow]:
        epoch, step = divmod(self._step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(len(self._rows), self._seed, epoch))
        start = step * self._settings.batch
        return [self._rows[i] for i in self._order[1][start : start + self._settings.batch]]

    def _pass(self, rows: Sequence[TokenRow], count: int) -> tuple[float, float]:
        """Loss and accuracy a token; with gradients where they are enabled, of the whole step's mean."""
        loss = torch.zeros((), dtype=torch.float64)
        hits = 0
        ranks = self.optimiser.ranks
        budget = self._settings.micro_batch_tokens
        for batch in micro_batches(rows, budget, self._device, rank=ranks.rank, size=ranks.size):
            with packed_attention(self._model):
                values = self.optimiser.values(batch)
                nll = -values.logprobs.sum() / count
                if torch.is_grad_enabled():
                    self.optimiser.backward(nll)
            loss += nll.detach().double().cpu()
            hits += int(values.likeliest.sum())
        sums = ranks.totals({"loss": float(loss), "hits": hits})
        return sums["loss"], sums["hits"] / count

    def _own_random_stream(self) -> Any:
        rank = (self.optimiser.ranks.rank,) if self.optimiser.ranks.size > 1 else ()
        return _random_stream(derive_seed(self._seed, "step", self._step, *rank), self._device)


class _random_stream:
    """Draws of torch come from `seed` inside, and go on outside as if nothing had been drawn (dropout of adapters)."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
