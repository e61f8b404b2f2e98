"""AdamW spread over processes by DeepSpeed: ZeRO-2 (gradients, moments, masters) and ZeRO-3 (weights too).

Every rank computes its share of a step's micro-batches (`packing.rank_shares`) with weights that come from the whole
step, and gradients are summed. Invariant: the step is the one that `optim.MasterAdamW` would take, to rounding. All
methods are collective: every rank calls them in the same order.

What a rank holds is written by us, as tensors; DeepSpeed's own checkpoints are pickles and are never read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.training.attention import packed_attention
from muarl_cli.training.forward import TokenValues, token_values
from muarl_cli.training.optim import MOMENTS, Values, decay_groups, weights_fingerprint
from muarl_cli.training.packing import Packed, pack
from muarl_cli.training.ranks import Ranks

PERSISTENT = 100_000
"""weights; smaller tensors stay whole on every rank under ZeRO-3, since gathering them would cost more than it saves"""
BUCKET = 50_000_000
"""numbers a reduction at a time"""


@dataclass(frozen=True)
class Shards:
    """How the optimiser is spread: names and meanings are those of `shards` in `stages/rl_train.yaml`."""

    zero: int
    """2 or 3"""
    offload: bool
    """moments and masters in main memory"""


class ShardedAdamW:
    """The counterpart of `MasterAdamW` on all of `ranks`. Raises `MuarlError` where DeepSpeed is not installed."""

    def __init__(
        self, model: Any, weight_decay: float, betas: tuple[float, float], *, shards: Shards, ranks: Ranks
    ) -> None:
        self.ranks, self.whole_model = ranks, shards.zero < 3
        self._model = model
        model.zero_grad(set_to_none=True)  # what an earlier optimiser left on this rank alone
        trained = [p for p in model.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(decay_groups(trained, weight_decay), lr=0.0, betas=betas, fused=True)
        self._engine, self._zero = _engine(model, shards, adam)
        self._pending = False

    def values(self, batch: Packed, temperature: float = 1.0) -> TokenValues:
        """`forward.token_values`, with weights gathered layer by layer where they are spread."""
        return TokenValues(*self._engine(batch, temperature))

    def frozen(self, model: Any) -> Values:
        """As `MasterAdamW.frozen`; under ZeRO-3 the weights of that model are divided too."""
        if self.whole_model:
            return partial(token_values, model)
        engine, _ = _engine(model.requires_grad_(False), Shards(3, offload=False), None)
        return lambda batch, temperature: TokenValues(*engine(batch, temperature))

    def backward(self, loss: Tensor) -> None:
        """Add this rank's gradients to those of the step."""
        self._pending = True
        self._engine.backward(loss * self.ranks.size)  # DeepSpeed takes the mean over the ranks

    def apply(self, lr: float, grad_clip: float) -> float | None:
        """As `MasterAdamW.apply`; the norm is that of all ranks' gradients."""
        self._zero.clip_grad = grad_clip
        for group in self._zero.param_groups:
            group["lr"] = lr
        self._engine.step()
        self._pending = False
        norm = float(self._engine.get_global_grad_norm())
        return norm if math.isfinite(norm) and not self._zero.overflow else None

    def discard(self) -> None:
        """Forget the gradients of this step. DeepSpeed does so when a gradient is not finite, so one is made that is
        not: its buffers are its own."""
        if not self._pending:
            return
        device = next(self._model.parameters()).device
        with packed_attention(self._model):
            ids = torch.zeros(1, dtype=torch.long, device=device)
            line = replace(pack([], (), device), places=ids, targets=ids, most=1)
            self.backward(self.values(line).logprobs.sum() * math.nan)
        self.apply(0.0, 0.0)

    def weights(self) -> dict[str, Tensor] | None:
        """The trained parameters by name, whole, in main memory: on rank 0; None on the others."""
        import deepspeed

        found = {}
        for name, weight in self._model.named_parameters():
            if not weight.requires_grad:
                continue
            spread = hasattr(weight, "ds_id")
            with deepspeed.zero.GatheredParameters([weight]) if spread else nullcontext():
                if self.ranks.rank == 0:
                    found[name] = weight.detach().to("cpu", copy=True)
        return found if self.ranks.rank == 0 else None

    def fingerprint(self) -> str:
        """Tells the weights from others: over what every rank holds."""
        own = weights_fingerprint((name, getattr(p, "ds_tensor", p)) for name, p in self._model.named_parameters())
        return digest(self.ranks.gather(own), 16)

    def state(self) -> dict[str, Tensor]:
        """This rank's part of masters and moments: `<group>|<part>`. Live tensors: write them before the next step."""
        tensors = {}
        for number, master in enumerate(self._masters):
            tensors[f"{number}|master"] = master.detach()
            for part, value in self._zero.optimizer.state.get(master, {}).items():
                tensors[f"{number}|{part}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a copy of what `state` gave on this rank. Raises `MuarlError` where it belongs to another model or
        another division."""
        masters = dict(enumerate(self._masters))
        wanted = {f"{number}|master": master.shape for number, master in masters.items()}
        for number, master in masters.items():
            if f"{number}|step" in tensors:
                wanted |= {f"{number}|{p}": torch.Size() if p == "step" else master.shape for p in MOMENTS}
        odd = [key for key in {*wanted, *tensors} if key not in tensors or tensors[key].shape != wanted.get(key)]
        if odd:
            raise MuarlError(
                "the optimiser state does not fit this model as it is divided now",
                where=", ".join(sorted(odd)[:3]),
                next_step="resume with the model and the settings of the same checkpoint",
                code=ExitCode.BAD_DATA,
            )
        for number, master in masters.items():
            with torch.no_grad():
                master.copy_(tensors[f"{number}|master"])
            if f"{number}|step" in tensors:
                self._zero.optimizer.state[master] = {
                    part: tensors[f"{number}|{part}"].detach().clone().to(master.device) for part in MOMENTS
                }

    @property
    def _masters(self) -> list[Tensor]:
        name = "single_partition_of_fp32_groups" if self.whole_model else "fp32_partitioned_groups_flat"
        found: list[Tensor] = getattr(self._zero, name)
        return found


class _Pass(nn.Module):
    """The forward pass of training as one module: what DeepSpeed does before and after a pass hangs on it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Packed, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        found = token_values(self.model, batch, temperature)
        return found.logprobs, found.entropy, found.likeliest


def _engine(model: Any, shards: Shards, adam: Any) -> tuple[Any, Any]:
    """DeepSpeed's engine and optimiser over `model`; no optimiser for one that is never trained."""
    deepspeed = _deepspeed()
    config = _config(shards, next(model.parameters()).dtype == torch.bfloat16)
    whole = _Pass(model)
    if shards.zero == 3:
        # Divided weight by weight where it was loaded: the whole model need not fit on one GPU, even for a moment.
        deepspeed.zero.Init(module=whole, config_dict_or_path=config, mem_efficient_linear=False)
        for module in whole.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(deepspeed.get_accelerator().current_device_name()))
    found = deepspeed.initialize(model=whole, optimizer=adam, config=config, dist_init_required=False)
    return found[0], found[1]


def _config(shards: Shards, bf16: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": shards.zero,
        "contiguous_gradients": True,
        "overlap_comm": False,  # one order of summation, whatever the timing
        "reduce_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": PERSISTENT,
        "round_robin_gradients": False,
    }
    if shards.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    found: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # a step is over when we say so: ranks differ in what fills it
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW needs no compiler
        "gradient_clipping": 1.0,  # set anew before every step
        "steps_per_print": 2**31,
    }
    if bf16:
        found |= {
            "bf16": {"enabled": True, "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
        }
    return found


def _deepspeed() -> Any:
    """The package, without what it would compile or say on a CPU."""
    import logging
    import warnings

    # It calls collectives by names that torch has renamed, and would say so at each of them.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise MuarlError(
            "DeepSpeed is not installed",
            why=str(error),
            next_step="pip install 'muarl-cli[deepspeed]', or shards.zero=0 on one process",
            code=ExitCode.MISSING_INPUT,
        ) from error
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        # A collective for inference that training never calls, and a minute and a half of compiling.
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_init_required=False, verbose=False) if torch.distributed.is_initialized() else None
    return deepspeed
