"""Losses and gradients of other people's trainers on random batches with holes, as one JSON document.

Runs in an environment of its own, which has TRL, verl and OpenRLHF and nothing of this project (`make parity` builds
it): `python oracles.py SEED ... > fixtures/losses.json`. The document carries the packages' versions, the seeds, the
inputs and, for each case, the loss and its gradient with respect to the policy's log-probabilities.
"""

from __future__ import annotations

import json
import sys
import types
from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

ROWS, LENGTH = 6, 17
LOW, HIGH, BETA, CAP, DUAL = 0.2, 0.28, 0.1, 2.0, 3.0
GATE = (0.9, 1.15)
MASK = 0.05
CISPO_HIGH = 5.0
"""TRL's absolute cap of the ratio"""
PLACES = 12
"""decimals that are written: far below the 1e-6 that is asked for"""


def batch(seed: int) -> dict[str, torch.Tensor]:
    """A mask with holes and, in float64, log-probabilities of policy, old policy, engine and reference; an advantage a
    row. Ratios reach well beyond every clip."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(ROWS, LENGTH, generator=draw, dtype=torch.float64)

    mask = (torch.rand(ROWS, LENGTH, generator=draw) < 0.6).double()
    mask[:, 0] = 1.0
    policy = uniform(-4.0, -0.1)
    return {
        "mask": mask,
        "policy": policy,
        "old": policy + uniform(-0.5, 0.5) + torch.linspace(-1.3, 1.3, ROWS, dtype=torch.float64)[:, None],
        "engine": policy + uniform(-0.4, 0.4) + torch.linspace(-0.2, 0.2, ROWS, dtype=torch.float64)[:, None],
        "reference": policy + uniform(-1.0, 1.0),
        "advantage": torch.randn(ROWS, generator=draw, dtype=torch.float64),
    }


def graded(of: Any, data: dict[str, torch.Tensor]) -> dict[str, Any]:
    policy = data["policy"].clone().requires_grad_()
    loss = of(policy)
    loss.backward()
    assert policy.grad is not None
    return {"loss": round(loss.item(), PLACES), "gradient": listed(policy.grad)}


def listed(values: torch.Tensor) -> Any:
    return [[round(x, PLACES) for x in row] for row in values.tolist()] if values.dim() > 1 else values.tolist()


def trl_loss(
    data: dict[str, torch.Tensor],
    kind: str,
    level: str = "token",
    beta: float = 0.0,
    tis: bool = False,
    mask: float | None = None,
) -> Any:
    from trl.trainer.grpo_trainer import GRPOTrainer

    def of(policy: torch.Tensor) -> torch.Tensor:
        own = SimpleNamespace(
            _get_per_token_logps_and_entropies=lambda *a, **k: (policy, torch.zeros_like(policy), None),
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=mask,
            get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
            importance_sampling_level=level,
            beta=beta,
            loss_type=kind,
            epsilon_low=LOW,
            epsilon_high=CISPO_HIGH if kind == "cispo" else HIGH,
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
            use_vllm=tis,
            vllm_importance_sampling_correction=tis,
            model=SimpleNamespace(training=True),
            current_gradient_accumulation_steps=1,
            max_completion_length=LENGTH,
            _entropy_bonus_enabled=False,
            _metrics=defaultdict(lambda: defaultdict(list)),
            accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, *a, **k: x),
        )
        whole = torch.ones(ROWS, LENGTH, dtype=torch.long)
        inputs = {
            "prompt_ids": whole[:, :2],
            "prompt_mask": whole[:, :2],
            "completion_ids": whole,
            "completion_mask": whole,
            "tool_mask": data["mask"],
            "advantages": data["advantage"],
            "sampling_per_token_logps": data["engine"],
            "old_per_token_logps": data["old"],
            "ref_per_token_logps": data["reference"],
            "num_items_in_batch": data["mask"].sum(),
            "importance_sampling_ratio": (data["policy"] - data["engine"]).exp().clamp(max=CAP),
        }
        return GRPOTrainer._compute_loss(own, None, inputs)

    return of


def verl_loss(
    data: dict[str, torch.Tensor], name: str = "vanilla", how: str = "token-mean", dual: float = 1e9, tis: bool = False
) -> Any:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
    from verl.workers.config import ActorConfig

    config = ActorConfig(
        strategy="fsdp",
        rollout_n=ROWS,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=LOW,
        clip_ratio_low=LOW,
        clip_ratio_high=HIGH,
        clip_ratio_c=dual,
    )
    weights = None
    if tis:
        found = compute_rollout_correction_weights(data["policy"] - data["engine"], data["mask"], "token", CAP)
        weights = found[0]

    def of(policy: torch.Tensor) -> torch.Tensor:
        wide = data["advantage"][:, None].expand(ROWS, LENGTH)
        loss, _ = get_policy_loss_fn(name)(
            old_log_prob=data["old"],
            log_prob=policy,
            advantages=wide,
            response_mask=data["mask"],
            loss_agg_mode=how,
            config=config,
            rollout_is_weights=weights,
        )
        return loss

    return of


def verl_kl(data: dict[str, torch.Tensor], name: str) -> Any:
    from verl.trainer.ppo.core_algos import agg_loss, kl_penalty

    def of(policy: torch.Tensor) -> torch.Tensor:
        each = kl_penalty(logprob=policy, ref_logprob=data["reference"], kl_penalty=name)
        return BETA * agg_loss(loss_mat=each, loss_mask=data["mask"], loss_agg_mode="token-mean")

    return of


def openrlhf_loss(data: dict[str, torch.Tensor], **choice: Any) -> Any:
    sys.modules.setdefault("deepspeed", types.ModuleType("deepspeed"))
    # The module alone: its package would import DeepSpeed, Ray and flash-attn.
    import importlib.util
    from pathlib import Path

    root = (
        next(Path(p) for p in sys.path if (Path(p) / "openrlhf" / "models" / "loss.py").exists())
        / "openrlhf"
        / "models"
    )
    package = sys.modules.setdefault("openrlhf_models", types.ModuleType("openrlhf_models"))
    package.__path__ = [str(root)]
    for name in ("utils", "loss"):
        if f"openrlhf_models.{name}" not in sys.modules:
            spec = importlib.util.spec_from_file_location(f"openrlhf_models.{name}", root / f"{name}.py")
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
    made = sys.modules["openrlhf_models.loss"].PolicyLoss(clip_eps_low=LOW, clip_eps_high=HIGH, **choice)

    def of(policy: torch.Tensor) -> torch.Tensor:
        # OpenRLHF compares the engine with `old_log_probs`: on policy those are the trainer's own.
        corrected = choice.get("is_correction_level", "off") != "off"
        old = data["policy"] if corrected else data["old"]
        return made(policy, old, data["advantage"][:, None], data["mask"], data["engine"])[0]

    return of


def advantages(seed: int) -> dict[str, Any]:
    """Rewards of two groups of four, and what verl makes of them."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    draw = torch.Generator().manual_seed(seed)
    rewards = torch.rand(8, generator=draw, dtype=torch.float64)
    index = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = {}
    for name, scaled in (("mean_std", True), ("mean", False)):
        values, _ = compute_grpo_outcome_advantage(rewards[:, None], torch.ones(8, 1), index, 1e-6, scaled)
        found[name] = values[:, 0].tolist()
    return {"rewards": rewards.tolist(), "verl": found}


def cases(data: dict[str, torch.Tensor]) -> dict[str, Any]:
    whole = {
        "trl/token_mean": trl_loss(data, "dapo"),
        "trl/sequence_mean": trl_loss(data, "grpo"),
        "trl/dr_grpo": trl_loss(data, "dr_grpo"),
        "trl/gspo": trl_loss(data, "grpo", level="sequence"),
        "trl/cispo": trl_loss(data, "cispo"),
        "trl/importance": trl_loss(data, "dapo", tis=True),
        "trl/off_policy_mask": trl_loss(data, "dapo", mask=MASK),
        "trl/k3": trl_loss(data, "dapo", beta=BETA),
        "verl/token_mean": verl_loss(data),
        "verl/sequence_mean": verl_loss(data, how="seq-mean-token-mean"),
        "verl/dr_grpo": verl_loss(data, how="seq-mean-token-sum-norm"),
        "verl/dual_clip": verl_loss(data, dual=DUAL),
        "verl/gspo": verl_loss(data, "gspo", "seq-mean-token-mean"),
        "verl/cispo": verl_loss(data, "cispo"),
        "verl/importance": verl_loss(data, tis=True),
        "verl/k1": verl_kl(data, "k1"),
        "verl/k2": verl_kl(data, "k2"),
        "verl/k3": verl_kl(data, "low_var_kl"),
        "openrlhf/token_mean": openrlhf_loss(data),
        "openrlhf/sequence_mean": openrlhf_loss(data, token_level_loss=False),
        "openrlhf/dual_clip": openrlhf_loss(data, dual_clip=DUAL),
        "openrlhf/gspo": openrlhf_loss(data, policy_loss_type="gspo"),
        "openrlhf/importance": openrlhf_loss(
            data, is_correction_level="token", is_correction_mode="clip", is_correction_threshold=[0.0, CAP]
        ),
        "openrlhf/gate": openrlhf_loss(
            data, is_correction_level="seq", is_correction_mode="mask", is_correction_threshold=list(GATE)
        ),
    }
    return {name: graded(of, data) for name, of in whole.items()}


def main(seeds: list[int]) -> None:
    batches = []
    for seed in seeds:
        data = batch(seed)
        inputs = {name: listed(value) for name, value in data.items()}
        exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs.items()}
        batches.append({"seed": seed, "inputs": inputs, "cases": cases(exact), "advantages": advantages(seed)})
    packages = {name: version(name) for name in ("trl", "verl", "openrlhf", "torch")}
    settings = {
        "clip_low": LOW, "clip_high": HIGH, "kl_coef": BETA, "importance_cap": CAP, "dual_clip": DUAL,
        "gate": GATE, "mask": MASK, "cispo_high": CISPO_HIGH, "length": LENGTH,
    }  # fmt: skip
    json.dump({"packages": packages, "settings": settings, "batches": batches}, sys.stdout)
    print()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
