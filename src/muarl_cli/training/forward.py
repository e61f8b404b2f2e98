"""The one forward pass of all trainers: logits where they are needed, log-probabilities in fp32.

Only the places that carry a loss pass through the language head: with agent tokens a third of a conversation, and a
vocabulary of 151 k, the logits of the rest would cost most of the memory. Rows are padded on the right, which causal
attention never sees, so no mask is needed. Invariant: a row's values depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from muarl_cli.conversation.protocols import Owner, TokenRow


@dataclass(frozen=True)
class Packed:
    """Token rows as tensors. `ids` (B, T), padded on the right; the N agent tokens stand at (`rows`, `columns`).

    `sampled` (N,) are the log-probabilities they were sampled with, `weights` (N,) a number a token (an advantage).
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    sampled: Tensor
    weights: Tensor

    @property
    def targets(self) -> Tensor:
        return self.ids[self.rows, self.columns]


def pack(rows: Sequence[TokenRow], weights: Sequence[float], device: torch.device | str = "cpu") -> Packed:
    """Pad rows to one batch and find their agent tokens. A row's first token is never predicted, whoever owns it."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    owners = torch.full((len(rows), longest), int(Owner.TEMPLATE))
    logprobs = torch.zeros(len(rows), longest)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size] = torch.tensor(row.ids)
        owners[index, :size] = torch.tensor(row.owners)
        logprobs[index, :size] = torch.tensor(row.logprobs, dtype=torch.float32)
    owners[:, 0] = int(Owner.TEMPLATE)
    where, column = (owners == int(Owner.AGENT)).nonzero(as_tuple=True)
    weight = torch.tensor(list(weights), dtype=torch.float32)[where]
    moved = [t.to(device) for t in (ids, where, column, logprobs[where, column], weight)]
    return Packed(*moved)


def agent_tokens(row: TokenRow) -> int:
    """How many tokens of a row carry a loss."""
    return sum(1 for owner in row.owners[1:] if owner == Owner.AGENT)


def selected_logits(model: Any, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits (N, V) in fp32 at the places (`rows`, `columns`) of `ids` (B, T)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters sit inside the layers
    hidden = plain.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    logits: Tensor = plain.get_output_embeddings()(hidden[rows, columns])
    return logits.float()


def agent_logprobs(model: Any, batch: Packed, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability (N,) of each agent token under softmax(logits / temperature), and the entropy (N,) there, fp32.

    The entropy carries no gradient.
    """
    logits = selected_logits(model, batch.ids, batch.rows, batch.columns - 1)
    if temperature != 1.0:
        logits = logits / temperature
    everything = torch.log_softmax(logits, dim=-1)
    chosen = everything.gather(-1, batch.targets[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(everything.exp() * everything).sum(-1)
    return chosen, entropy
