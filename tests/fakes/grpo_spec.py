"""The plainest settings of GRPO on a toy: a test replaces what it is about."""

from __future__ import annotations

from muarl_cli.training.grpo import GrpoSpec

SPEC = GrpoSpec(
    lr=1e-3,
    schedule="constant",
    total_steps=0,
    warmup_steps=0,
    weight_decay=0.0,
    betas=(0.9, 0.95),
    grad_clip=1.0,
    loss="token_mean",
    loss_length=10,
    clip_low=0.2,
    clip_high=0.28,
    dual_clip=0.0,
    adaptive_clip=0.0,
    kl_coef=0.0,
    kl_estimator="k3",
    importance_cap=0.0,
    sequence_gate=None,
    off_policy_mask=0.0,
    temperature=1.0,
    micro_batch_tokens=64,
    updates_per_batch=1,
)
