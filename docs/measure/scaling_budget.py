"""Memory and time of one GRPO step of Qwen3-32B on 4 hosts with 8 GPUs each, on paper: from the shipped profile
and the assumptions below. Nothing here was measured. Prints JSON."""

from __future__ import annotations

import json

from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve

PROFILE = "paper-32b-4x8"
GPUS = 32
LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, INNER, VOCAB = 64, 5120, 64, 8, 128, 25600, 151936
"""Qwen3-32B's configuration; embeddings and head are not tied"""
GPU_MEMORY = 80e9
PEAK, SHARE = 989e12, 0.35
"""bf16 operations a second of an H100, and the share of them that training reaches on packed rows: an assumption"""
NETWORK = 50e9
"""bytes a second out of each GPU between hosts: 400 Gbit/s"""
EPISODE, COMMON = 10_000, 6_000
"""tokens of an episode, and those that a task's episodes begin with (policy, tool schemas): assumptions"""


def main() -> None:
    settings = resolve(Stage.RL_TRAIN, profile_name=PROFILE, environ={}).flat()
    layer = WIDTH * HEAD_SIZE * (2 * HEADS + 2 * KV_HEADS) + 3 * WIDTH * INNER
    weights = LAYERS * layer + 2 * VOCAB * WIDTH
    budget = settings["micro_batch_tokens"]
    memory = {
        "weights_bf16": 2 * weights / GPUS,
        "reference_bf16": 2 * weights / GPUS if settings["kl_coef"] else 0.0,
        "gradients_fp32": 4 * weights / GPUS,
        "masters_and_moments_fp32": 12 * weights / GPUS * (not settings["shards.offload"]),
        "layer_inputs": 2 * budget * WIDTH * LAYERS,
        "one_layer_recomputed": 2 * budget * (3 * INNER + 2 * HEADS * HEAD_SIZE + 4 * WIDTH),
        "gathered_weights": 2 * (3 * layer + VOCAB * WIDTH),
        "head_chunk": 3 * 4 * 2**25,
    }
    groups, group = settings["prompts_per_step"], settings["group"]
    tokens = groups * (COMMON + group * (EPISODE - COMMON))
    passes = 4 + bool(settings["kl_coef"])  # forward, twice that backward, recomputed forward, reference
    each = passes * (2 * weights + 4 * LAYERS * HEADS * HEAD_SIZE * EPISODE / 2)
    compute = tokens * each / (GPUS * PEAK * SHARE)
    micro_batches = -(-tokens // (GPUS * budget))
    traffic = micro_batches * (2 * weights * (3 + bool(settings["kl_coef"])) + 4 * weights) / NETWORK
    print(
        json.dumps(
            {
                "weights": weights,
                "memory_gb": {name: round(size / 1e9, 1) for name, size in memory.items()},
                "memory_gb_a_gpu": round(sum(memory.values()) / 1e9, 1),
                "fits": sum(memory.values()) < 0.9 * GPU_MEMORY,
                "episodes_a_step": groups * group,
                "tokens_a_step": groups * group * EPISODE,
                "tokens_computed_a_step": tokens,
                "compute_s": round(compute, 1),
                "traffic_s": round(traffic, 1),
                "update_s": [round(max(compute, traffic), 1), round(compute + traffic, 1)],
                "tokens_per_s": round(groups * group * EPISODE / (compute + traffic)),
                "checkpoint_gb": round((2 + 12) * weights / 1e9),
            }
        )
    )


if __name__ == "__main__":
    main()
