"""The one forward pass of all trainers: log-probabilities of the agent's tokens, in fp32.

Only the places that carry a loss pass through the language head, and those in chunks: with a vocabulary of 151 k, the
logits of a micro-batch would cost more memory than the model. A chunk's logits are made again in the backward pass, so
that never more than one chunk of them is held. Invariant: a row's values depend on that row alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from muarl_cli.training.attention import packed_attention, plain_model
from muarl_cli.training.packing import Packed

CHUNK_LOGITS = 2**25
"""logits at a time: 128 MiB in fp32, large enough to keep matrix products efficient"""


@dataclass(frozen=True)
class TokenValues:
    """What a model says of N agent tokens; all (N,), fp32."""

    logprobs: Tensor
    """log softmax(logits / temperature) of the token"""
    entropy: Tensor
    """of the distribution there, in nats; no gradient"""
    likeliest: Tensor
    """1.0 where the token was the likeliest one"""


def hidden_states(model: Any, batch: Packed) -> Tensor:
    """The decoder's last hidden states (T, D) on a packed line."""
    with packed_attention(model):
        found = plain_model(model).get_decoder()(
            input_ids=batch.ids[None], position_ids=batch.positions[None], use_cache=False, spans=batch.spans
        )
    hidden: Tensor = found.last_hidden_state[0]
    return hidden


def recomputing(model: Any) -> None:
    """From now on keep only what enters each layer, and compute the rest again in the backward pass."""
    plain_model(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def token_values(model: Any, batch: Packed, temperature: float = 1.0, chunk_logits: int = CHUNK_LOGITS) -> TokenValues:
    """Log-probability, entropy and rank of each agent token of `batch` under softmax(logits / temperature).

    Take the backward pass inside `packed_attention(model)`, which gradient checkpointing needs.
    """
    head = plain_model(model).get_output_embeddings()
    hidden = hidden_states(model, batch)[batch.places]
    size = max(1, chunk_logits // head.out_features)
    parts = []
    for start in range(0, max(1, batch.most), size):
        chunk, targets = hidden[start : start + size], batch.targets[start : start + size]
        again = torch.is_grad_enabled() and batch.most > size
        arguments = (head, chunk, targets, temperature)
        parts.append(checkpoint(_values, *arguments, use_reentrant=False) if again else _values(*arguments))
    logprobs, entropy, likeliest = (torch.cat(each) for each in zip(*parts, strict=True))
    return TokenValues(logprobs, entropy, likeliest)


def _values(head: Any, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    logits = head(hidden).float()
    if temperature != 1.0:
        logits = logits / temperature
    everything = torch.log_softmax(logits, dim=-1)
    chosen = everything.gather(-1, targets[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(everything.exp() * everything).sum(-1)
        likeliest = (everything.argmax(-1) == targets).float()
    return chosen, entropy, likeliest
