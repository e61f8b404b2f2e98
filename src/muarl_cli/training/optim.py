"""What changes the weights: the course of the learning rate, and AdamW over fp32 master weights.

Invariant: a step is applied whole or not at all. A gradient that is not finite changes nothing: neither the weights nor
the optimiser's moments. bf16 weights get fp32 masters, because an update of 1e-6 is lost in the seven bits of a bf16
mantissa; fp32 weights are their own masters and cost nothing extra.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.forward import TokenValues, token_values
from muarl_cli.training.packing import Packed
from muarl_cli.training.ranks import ALONE, Ranks

Values = Callable[[Packed, float], TokenValues]
"""of a micro-batch at a temperature"""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Schedule(StrEnum):
    """Course of the learning rate after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """half a cosine wave down to 0"""
    LINEAR = "linear"
    """a straight line down to 0"""


def lr_at(
    step: int, total: int, lr: float, schedule: Schedule | str, warmup_steps: int, progress: float | None = None
) -> float:
    """The learning rate of step `step` (counted from 0) of `total`; `lr` is its highest value.

    It rises in a line over `warmup_steps` (the first step has lr / warmup_steps, never 0), then follows `schedule`.
    `progress` in 0..1 replaces the place in the descent where the number of steps is not known, as in a run that ends
    by the clock. `total` 0 (unknown) without `progress` never descends.
    """
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    if progress is None:
        progress = (step - warmup_steps) / (total - warmup_steps) if total > warmup_steps else 0.0
    done = min(1.0, max(0.0, progress))
    match Schedule(schedule):
        case Schedule.CONSTANT:
            return lr * rise
        case Schedule.COSINE:
            return lr * rise * 0.5 * (1.0 + math.cos(math.pi * done))
        case Schedule.LINEAR:
            return lr * rise * (1.0 - done)


class MasterAdamW:
    """AdamW over the trainable parameters of a model. Use: `backward(loss)`, ..., then `apply()` or `discard()`.

    `collect` follows every backward pass: it moves the gradients of bf16 weights to their fp32 masters, so that
    micro-batches add up in fp32. Matrices decay, vectors (norms, biases) do not.
    """

    whole_model = True
    """whether the model's own parameters hold all weights"""

    def __init__(self, model: Any, weight_decay: float, betas: tuple[float, float]) -> None:
        self.ranks, self._model = ALONE, model
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self._weights:
            raise ValueError("the model has no trainable parameter")
        self._masters = {
            name: p.detach().float().requires_grad_() if p.dtype in (torch.bfloat16, torch.float16) else p
            for name, p in self._weights.items()
        }
        # The learning rate is set anew before every step; 0 says that this one is never used.
        groups = decay_groups(self._masters.values(), weight_decay)
        self._adam = torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)

    def values(self, batch: Packed, temperature: float = 1.0) -> TokenValues:
        """`forward.token_values` of the model."""
        return token_values(self._model, batch, temperature)

    def frozen(self, model: Any) -> Values:
        """`values` of another model, which is never trained."""
        return partial(token_values, model)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to those of the step."""
        loss.backward()
        self.collect()

    def collect(self) -> None:
        """Add the gradients of the last backward pass to those of the step."""
        for name, weight in self._weights.items():
            master = self._masters[name]
            if master is weight or weight.grad is None:
                continue
            gradient = weight.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            weight.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients collected since the last step, by parameter name; a copy."""
        return {name: p.grad.detach().clone() for name, p in self._masters.items() if p.grad is not None}

    def apply(self, lr: float, grad_clip: float) -> float | None:
        """Take the step and forget the gradients. Returns the norm of the gradient before clipping (`grad_clip` 0 =
        none), or None where it is not finite: then nothing has changed."""
        masters = list(self._masters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(masters, grad_clip if grad_clip > 0 else math.inf))
        if math.isfinite(norm):
            for group in self._adam.param_groups:
                group["lr"] = lr
            self._adam.step()
            with torch.no_grad():
                for name, weight in self._weights.items():
                    if self._masters[name] is not weight:
                        weight.copy_(self._masters[name])
        self.discard()
        return norm if math.isfinite(norm) else None

    def discard(self) -> None:
        """Forget the gradients of this step."""
        self._adam.zero_grad(set_to_none=True)
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments, and masters where they are not the weights themselves: `<parameter>|<part>`. The live tensors, not
        copies: write them before the next step."""
        tensors = {}
        for name, master in self._masters.items():
            if master is not self._weights[name]:
                tensors[f"{name}|master"] = master.detach()
            for part, value in self._adam.state.get(master, {}).items():
                tensors[f"{name}|{part}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a copy of what `state` gave. Raises `MuarlError` where it belongs to another model."""
        wanted = {f"{name}|master": p.shape for name, p in self._masters.items() if p is not self._weights[name]}
        possible = wanted | {
            f"{name}|{part}": torch.Size() if part == "step" else p.shape
            for name, p in self._masters.items()
            for part in MOMENTS
        }
        odd = [key for key, value in tensors.items() if possible.get(key) != value.shape]
        odd += [key for key in wanted if key not in tensors]
        for name in self._masters:  # a parameter has all of its moments, or none where it never had a gradient
            present = [f"{name}|{part}" for part in MOMENTS if f"{name}|{part}" in tensors]
            odd += present if 0 < len(present) < len(MOMENTS) else []
        if odd:
            raise MuarlError(
                "the optimiser state does not fit this model",
                where=", ".join(sorted(odd)[:3]),
                next_step="resume with the model folder of the same checkpoint",
                code=ExitCode.BAD_DATA,
            )
        self._adam.state.clear()
        for name, master in self._masters.items():
            if master is not self._weights[name]:
                with torch.no_grad():
                    master.copy_(tensors[f"{name}|master"])
            if f"{name}|step" in tensors:
                self._adam.state[master] = {
                    part: tensors[f"{name}|{part}"].detach().clone().to(master.device) for part in MOMENTS
                }

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by name; live."""
        return {name: p.detach() for name, p in self._weights.items()}

    def fingerprint(self) -> str:
        """Tells the model's weights from others."""
        return weights_fingerprint(self._model.named_parameters())


class Optimiser(Protocol):
    """What the trainers need: `MasterAdamW` in one process, `sharded.ShardedAdamW` in several."""

    ranks: Ranks
    whole_model: bool

    def values(self, batch: Packed, temperature: float = 1.0) -> TokenValues: ...

    def frozen(self, model: Any) -> Values: ...

    def backward(self, loss: Tensor) -> None: ...

    def apply(self, lr: float, grad_clip: float) -> float | None: ...

    def discard(self) -> None: ...

    def weights(self) -> dict[str, Tensor] | None: ...

    def fingerprint(self) -> str: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None: ...


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors do not."""
    everything = list(parameters)
    groups = [
        {"params": [p for p in everything if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in everything if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def weights_fingerprint(named: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of a few numbers of every parameter: tells one step of training from the next, and costs nothing."""
    summary = hashlib.sha256()
    for name, parameter in named:
        flat = parameter.detach().reshape(-1)
        few = flat[:: max(1, flat.numel() // 16)][:16].double().cpu()
        summary.update(name.encode() + few.numpy().tobytes())
    return summary.hexdigest()[:16]


def require_ranks(ranks: Ranks, json: Mapping[str, Any]) -> None:
    """Raise `MuarlError` unless there are as many processes as when the trainer's state `json` was saved."""
    saved = int(json.get("ranks", 1))
    if saved != ranks.size:
        raise MuarlError(
            f"this run was begun by {saved} process{'es' if saved > 1 else ''}, and now there {_are(ranks.size)}",
            why="each process has its own part of the optimiser's state, and sums would be rounded in another order",
            next_step=f"start it again with --processes {saved}" if saved > 1 else "start it again without --launcher",
            code=ExitCode.CONFIG,
        )


def _are(count: int) -> str:
    return f"are {count}" if count > 1 else "is one"


def require_same(optimiser: Optimiser, json: Mapping[str, Any]) -> None:
    """Raise `MuarlError` unless there are as many processes, and the model has the weights, as when the trainer's state
    `json` was saved."""
    require_ranks(optimiser.ranks, json)
    if optimiser.fingerprint() != json.get("weights"):
        raise MuarlError(
            "the model's weights are not those of this training state",
            why="the state holds the optimiser and the position; the weights are the checkpoint's model folder",
            next_step="load the model from the same checkpoint, then the state",
            code=ExitCode.BAD_DATA,
        )


@contextmanager
def model_mode(model: Any, training: bool) -> Iterator[None]:
    """Training or evaluation mode for a while; the engine that shares the module finds it as it was."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
