"""Wired copying: a tiny model starts with an induction circuit instead of finding one.

Tool use stands on copying: an identifier that the user said must come out in a call. A model of under a million weights
needs thousands of steps of pure copying before the circuit for it forms (and often never finds it); written into the
initial weights it is there at once, and training only has to bend it. The circuit is the known two-layer one: a head of
layer 0 attends to the previous token and writes what it was beside the current one; heads of layer 1 look for the place
whose previous token is the current token, and copy what stands there to the output.

Invariant: nothing about any text is written, only the circuit; all weights stay ordinary, trainable weights of the same
architecture. The residual stream is split into a constant (0), content (1 .. 2h) and a scratch place (2h+1 .. 3h), h
being the head size, which makes 3h + 1 the least width.
"""

from __future__ import annotations

import math
from typing import Any

PAIRS = 5
"""the fastest rotating pairs make the previous-token head; the slower ones carry what is matched"""
QUIET = 0.1
"""what is left of the random weights where the circuit stands"""
SHARP = 3.0
"""query gain: how sharply the circuit's heads attend"""


def can_be_wired(config: Any) -> bool:
    """Whether the shape has room: two layers, width for the split, and as many key as query heads (or grouped ones) to
    hold two copying heads."""
    head = config.head_dim
    return (
        config.num_hidden_layers >= 2
        and config.hidden_size > 3 * head
        and config.num_key_value_heads >= 2
        and config.num_attention_heads == config.num_key_value_heads
        and head // 2 > PAIRS + 4
    )


def wire(model: Any, seed: int) -> None:
    """Write the circuit into a freshly made Qwen3 model, in place. `can_be_wired(model.config)` must hold."""
    import torch

    config, draw = model.config, torch.Generator().manual_seed(seed)
    head, half = config.head_dim, config.head_dim // 2
    content, scratch = 1, 1 + 2 * head
    theta = float(config.rope_parameters["rope_theta"])
    frequency = [theta ** (-2 * j / head) for j in range(half)]
    slow = [*range(PAIRS, half), *range(half + PAIRS, head)]
    mix = torch.linalg.qr(torch.randn(head, head, generator=draw))[0][: len(slow)]
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding.normal_(0, 0.005, generator=draw)
        embedding[:, content:scratch] = 0.06 * torch.randn(len(embedding), 2 * head, generator=draw)
        embedding[:, 0] = 0.1
        first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
        for attention in (first, second):
            attention.q_norm.weight.fill_(SHARP)
        _quiet(first, 0, head)
        for j in range(PAIRS):  # queries turned back by one position meet the keys of the token before
            first.k_proj.weight[j, 0] = 1.0
            first.q_proj.weight[j, 0] = math.cos(-frequency[j])
            first.q_proj.weight[j + half, 0] = math.sin(-frequency[j])
        for i in range(head):
            first.v_proj.weight[i, content + i] = 0.7
            first.o_proj.weight[scratch + i, i] = 0.1
        for number in range(2):
            start = number * head
            _quiet(second, start, head)
            for row, place in enumerate(slow):
                second.q_proj.weight[start + place, content : content + head] = mix[row]
                second.k_proj.weight[start + place, scratch : scratch + head] = mix[row]
            for i in range(head):
                second.v_proj.weight[start + i, content + start + i] = 0.7
                second.o_proj.weight[content + start + i, start + i] = 0.3


def _quiet(attention: Any, start: int, size: int) -> None:
    """Turn down the random weights of one head."""
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[start : start + size] *= QUIET
    attention.o_proj.weight[:, start : start + size] *= QUIET
