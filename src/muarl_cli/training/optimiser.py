"""AdamW with its learning-rate schedule and its state as tensors and JSON: what both trainers share.

Invariant: state is a dictionary of tensors plus a JSON value and never a pickle, and loading it gives the same next
step to the bit. The model's weights are not part of it: they stand in the checkpoint's model folder, in fp32, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from muarl_cli.errors import ExitCode, MuarlError


class Schedule(StrEnum):
    """How the learning rate moves after its warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """down to zero at the last step"""


@dataclass(frozen=True)
class OptimiserSpec:
    """AdamW and its schedule; weight decay spares vectors (norms, biases)."""

    lr: float
    schedule: Schedule | str
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    grad_clip: float


@dataclass(frozen=True)
class TrainerState:
    """What a trainer must be given back to go on: tensors by name, and a JSON value."""

    tensors: dict[str, Tensor]
    info: dict[str, Any] = field(default_factory=dict)


def learning_rate(spec: OptimiserSpec, step: int, total: int) -> float:
    """The rate of step `step` (from 0) of `total`: a linear rise over the warm-up, then the schedule."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    if Schedule(spec.schedule) is Schedule.CONSTANT:
        return spec.lr
    progress = (step - spec.warmup_steps) / max(1, total - spec.warmup_steps)
    return spec.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


class Optimiser:
    """Steps the trainable parameters of a model."""

    def __init__(self, model: Any, spec: OptimiserSpec) -> None:
        self.spec = spec
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = [p for p in self._named.values() if p.dim() >= 2]
        vectors = [p for p in self._named.values() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=spec.betas, fused=True)

    def zero(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def step(self, lr: float) -> float:
        """Clip, step with this rate, and return the gradient's norm before clipping. A norm that is no finite number is
        an error: stepping with it would ruin the weights."""
        bound = self.spec.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._named.values(), bound))
        if not math.isfinite(norm):
            raise MuarlError(
                "the gradient is not finite",
                why="a learning rate that is too high, or a broken row",
                next_step="resume from the last checkpoint with a smaller lr",
                code=ExitCode.BAD_DATA,
            )
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the moments, as "optimiser.PARAMETER.KEY"."""
        out = {}
        for name, parameter in self._named.items():
            for key, value in self._adam.state.get(parameter, {}).items():
                out[f"optimiser.{name}.{key}"] = value.detach().clone().contiguous()
        return out

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`. Raises `MuarlError` where they belong to another model."""
        known = {name: p for name, p in self._named.items() if f"optimiser.{name}.exp_avg" in tensors}
        extra = [key for key in tensors if key.startswith("optimiser.") and key[10:].rpartition(".")[0] not in known]
        if extra:
            raise MuarlError(
                f"the optimiser state has {len(extra)} tensors for parameters that this model does not train",
                where=extra[0],
                next_step="resume with the model and the settings that the state was saved with",
                code=ExitCode.BAD_DATA,
            )
        for name, parameter in known.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            state = {key: tensors[f"optimiser.{name}.{key}"].clone() for key in keys}
            self._adam.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device, parameter.dtype).reshape(parameter.shape)
                for key, value in state.items()
            }
