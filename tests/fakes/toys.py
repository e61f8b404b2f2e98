"""Toy models and token rows for tests of training: a Qwen3 of a few thousand weights over 40 tokens."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from muarl_cli.conversation.protocols import Owner, TokenRow

VOCAB = 40


def toy_model(seed: int = 0, **changes: Any) -> Any:
    """A random model, always the same for the same arguments."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(Qwen3Config(**(shape | changes)))
        with torch.no_grad():  # larger than the usual start, so that probabilities and gradients are not all alike
            for parameter in model.parameters():
                parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    return model.eval()


def toy_row(seed: int, length: int, *, holes: float = 0.5) -> TokenRow:
    """Random ids; each place is the agent's with probability 1 - `holes`, and one of them always is."""
    draw = random.Random(f"row {seed} {length}")
    ids = tuple(draw.randrange(VOCAB) for _ in range(length))
    others = (Owner.TEMPLATE, Owner.USER, Owner.WORLD)
    owners = [int(draw.choice(others)) if draw.random() < holes else int(Owner.AGENT) for _ in range(length)]
    owners[draw.randrange(1, length)] = int(Owner.AGENT)
    logprobs = tuple(draw.uniform(-6.0, -0.1) if owner == Owner.AGENT else 0.0 for owner in owners)
    return TokenRow(ids, tuple(owners), logprobs)


def sampled_by(model: Any, row: TokenRow, temperature: float = 1.0, noise: float = 0.0, seed: int = 0) -> TokenRow:
    """The row with the model's own log-probabilities, each moved by up to `noise`. Derived here from the model's plain
    forward pass, a token at a time."""
    import torch

    draw = random.Random(seed)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double() / temperature
    logprobs = [0.0] * len(row.ids)
    for place in range(1, len(row.ids)):
        if row.owners[place] == Owner.AGENT:
            exact = torch.log_softmax(logits[place - 1], -1)[row.ids[place]]
            logprobs[place] = float(exact) + draw.uniform(-noise, noise)
    return TokenRow(row.ids, row.owners, tuple(logprobs))


@lru_cache(maxsize=1)
def shared_toy() -> Any:
    """One toy model for tests that change no weight."""
    return toy_model()
