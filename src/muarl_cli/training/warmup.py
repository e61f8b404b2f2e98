"""Copy warm-up: the first minute of a tiny model's life.

A random segment, a gap, the same segment again; the loss falls on the second copy only. This forms the induction
heads on which tool use stands (an identifier seen in the talk must come out in a call); without it a tiny model
learns nothing useful in minutes. Nothing about any scenario is shown. Invariant: step n depends on (seed, n) alone,
so a run may be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WarmupSpec:
    """`segment` and `gap` are the longest lengths in tokens; each batch draws its own."""

    steps: int
    lr: float
    batch: int
    segment: int = 24
    gap: int = 48
    digit_share: float = 0.5
    """how many of the rows are made of digits only, the hardest thing to copy"""


def copy_warmup(model: Any, tokenizer: Any, spec: WarmupSpec, seed: int) -> Iterator[dict[str, float]]:
    """Train `model` in place; yields {"step", "loss", "accuracy"} (share of copied tokens that were the likeliest)."""
    import torch

    from muarl_cli.hashing import derive_seed

    controls = set(tokenizer.get_added_vocab().values())
    words = torch.tensor([i for i in range(len(tokenizer)) if i not in controls])
    digits = torch.tensor([tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=spec.lr, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    for step in range(spec.steps):
        for group in optimiser.param_groups:  # rises over 20 steps, then falls to a tenth
            group["lr"] = spec.lr * min(1.0, (step + 1) / 20) * (1.0 - 0.9 * step / spec.steps)
        draw = torch.Generator().manual_seed(derive_seed(seed, "warmup", step))
        ids, rows, columns = _copy_batch(words, digits, spec, draw)
        logits = model(input_ids=ids, use_cache=False).logits[rows, columns - 1]
        targets = ids[rows, columns]
        loss = torch.nn.functional.cross_entropy(logits, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        accuracy = (logits.argmax(-1) == targets).float().mean()
        yield {"step": step + 1, "loss": float(loss.detach()), "accuracy": float(accuracy)}
    model.zero_grad(set_to_none=True)  # whoever trains it next must not find the last gradient of this
    model.eval()


def _copy_batch(words: Any, digits: Any, spec: WarmupSpec, draw: Any) -> tuple[Any, Any, Any]:
    """Ids (batch, length) and the places (rows, columns) of the second copies; the first token of a copy is no target,
    since nothing announces it."""
    import torch

    length = int(torch.randint(4, spec.segment + 1, (1,), generator=draw))
    gap = int(torch.randint(1, spec.gap + 1, (1,), generator=draw))
    before = int(torch.randint(0, spec.gap + 1, (1,), generator=draw))
    total = before + length + gap + length
    ids = words[torch.randint(len(words), (spec.batch, total), generator=draw)]
    numeric = torch.rand(spec.batch, generator=draw) < spec.digit_share
    drawn = digits[torch.randint(10, (spec.batch, length), generator=draw)]
    # A digit run starts with a word, as an identifier in a talk does.
    drawn[:, 0] = ids[:, before]
    segment = torch.where(numeric[:, None], drawn, ids[:, before : before + length])
    ids[:, before : before + length] = segment
    ids[:, total - length :] = segment
    columns = torch.arange(total - length + 1, total).repeat(spec.batch)
    rows = torch.arange(spec.batch).repeat_interleave(length - 1)
    return ids, rows, columns
