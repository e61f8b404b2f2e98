"""What one rank does in the tests of sharded training: `torchrun ... ranked.py FOLDER CASE...`.

Each case takes a few steps of a toy model, and rank 0 writes what it saw: metrics, weights, and the same after a resume
from what the ranks wrote in the middle.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes.toys import sampled_by, toy_model, toy_row

STEPS = 4


@dataclass(frozen=True)
class Case:
    """A way of training the same toy on the same samples."""

    zero: int = 0
    offload: bool = False
    lora: bool = False
    loss: str = "token_mean"
    kl: float = 0.0
    updates: int = 1
    dtype: str = "fp32"
    recompute: bool = False
    reference: bool = False
    """whether the KL is measured against a second model"""
    broken: bool = False
    """whether the second step's samples give a loss that is not finite"""


CASES = {
    "zero2": Case(2),
    "zero3": Case(3),
    "zero2-offload": Case(2, offload=True),
    "zero3-offload": Case(3, offload=True),
    "zero2-lora": Case(2, lora=True, kl=0.1),
    "zero3-lora": Case(3, lora=True, kl=0.1),
    "zero3-gspo": Case(3, loss="gspo", updates=2),
    "zero3-recompute": Case(3, recompute=True),
    "zero3-reference": Case(3, kl=0.1, reference=True),
    "zero2-broken": Case(2, broken=True),
    "zero3-broken": Case(3, broken=True),
    "zero3-bf16": Case(3, dtype="bf16"),
}


def samples() -> list[Any]:
    """Rows of four groups; the rows of a group begin alike, and one episode forked into two rows."""
    from muarl_cli.conversation.protocols import TokenRow
    from muarl_cli.training.grpo import Sample

    model, found = toy_model(num_hidden_layers=2), []
    for group in range(4):
        root = toy_row(100 + group, 36, holes=1.0)
        for number in range(4):
            end = toy_row(10 * group + number, 9 + 5 * number + group)
            row = TokenRow(root.ids + end.ids, (0, *root.owners[1:-1], 0, *end.owners), root.logprobs + end.logprobs)
            clean = replace(row, owners=tuple(0 if i < 36 else o for i, o in enumerate(row.owners)))
            episode = 100 * group + (number if number < 3 else 2)
            found.append(
                Sample(sampled_by(model, clean, noise=0.3, seed=number), (0.7, -1.2, 0.4, 0.4)[number], episode)
            )
    return found


def model_of(case: Case) -> Any:
    """The toy, the same on every rank."""
    import torch

    model = toy_model(num_hidden_layers=2)
    if case.dtype == "bf16":
        model = model.to(torch.bfloat16)
    if case.lora:
        from muarl_cli.training.lora import LoraSpec, with_lora

        model = with_lora(model, LoraSpec(rank=4, alpha=8.0, targets="all-linear"), seed=3)
    if case.recompute:
        from muarl_cli.training.forward import recomputing

        recomputing(model)
    return model


def trainer_of(case: Case, model: Any, **optimiser: Any) -> Any:
    """GRPO on the toy; the reference is another model, so that the KL counts from the first step."""
    from muarl_cli.training.grpo import GrpoTrainer

    reference = toy_model(seed=9, num_hidden_layers=2) if case.reference else None
    return GrpoTrainer(model, spec_of(case), reference, **optimiser)


def spec_of(case: Case) -> Any:
    from fakes.grpo_spec import SPEC

    toy = replace(SPEC, lr=1e-2, weight_decay=0.1, grad_clip=0.5, micro_batch_tokens=96)
    return replace(toy, loss=case.loss, kl_coef=case.kl, updates_per_batch=case.updates)


def steps(trainer: Any, case: Case, first: int, last: int) -> list[dict[str, float]]:
    """Steps `first` to `last` - 1."""
    found = []
    for number in range(first, last):
        given = samples()
        if case.broken and number == 1:
            given[3] = replace(given[3], advantage=float("nan"))
        found.append(trainer.update(given))
    return found


def weights_of(trainer: Any) -> Any:
    found = trainer.optimiser.weights()
    return None if found is None else {name: tensor.float().flatten().tolist() for name, tensor in found.items()}


def run(case: Case, ranks: Any, folder: Path) -> dict[str, Any]:
    """Straight on, and again with a resume in the middle from files."""
    from muarl_cli.training import sharded
    from muarl_cli.training.shard_files import read_shard, write_shard

    sharded.PERSISTENT = 0  # everything is gathered, however small
    make = partial(sharded.ShardedAdamW, shards=sharded.Shards(case.zero, case.offload), ranks=ranks)
    straight = trainer_of(case, model_of(case), optimiser=make)
    metrics = steps(straight, case, 0, STEPS)
    begun = trainer_of(case, model_of(case), optimiser=make)
    steps(begun, case, 0, 2)
    state = write_shard(begun, folder)
    half = begun.optimiser.weights()
    resumed_model = model_of(case)
    weights = ranks.gather(half)[0]
    resumed_model.load_state_dict(weights, strict=False)
    resumed = trainer_of(case, resumed_model, optimiser=make)
    read_shard(resumed, folder, state)
    steps(resumed, case, 2, STEPS)
    return {"metrics": metrics, "weights": weights_of(straight), "resumed": weights_of(resumed), "state": state}


def main() -> None:
    from muarl_cli.training.ranks import open_ranks

    folder = Path(sys.argv[1])
    with open_ranks() as ranks:
        for name in sys.argv[2:]:
            own = folder / name
            own.mkdir(exist_ok=True)
            seen = run(CASES[name], ranks, own)
            if ranks.rank == 0:
                (folder / f"{name}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
