"""Our losses and their gradients against TRL 1.16.0, verl 0.9.1 and OpenRLHF 0.11.2, frozen as numbers.

`fixtures/losses.json` was written by `oracles.py` in an environment that has those packages; `make parity` builds it
and compares on fresh random batches (MUARL_PARITY names that document).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from muarl_cli.training.advantages import group_advantages
from muarl_cli.training.losses import (
    Loss,
    cispo_policy_loss,
    clipped_policy_loss,
    gspo_policy_loss,
    kl_divergence,
    off_policy_kept,
    sequence_gate,
    truncated_importance,
)
from muarl_cli.training.reduction import token_weights

PLACE = Path(os.environ.get("MUARL_PARITY", Path(__file__).parent / "fixtures" / "losses.json"))
ORACLES: dict[str, Any] = json.loads(PLACE.read_text(encoding="utf-8"))
SET = ORACLES["settings"]
LOW, HIGH = SET["clip_low"], SET["clip_high"]
Values = dict[str, Tensor]


def flat(inputs: dict[str, Any]) -> tuple[Tensor, Values]:
    """The mask, and the inputs at its N tokens; `sequence` counts rows."""
    full = {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs.items()}
    mask = full.pop("mask").bool()
    rows, length = mask.shape
    full["advantage"] = full["advantage"][:, None].expand(rows, length)
    values = {name: value[mask] for name, value in full.items()}
    values["sequence"] = torch.arange(rows)[:, None].expand(rows, length)[mask]
    return mask, values


def weighed(each: Tensor, values: Values, loss: Loss) -> Tensor:
    counts = torch.bincount(values["sequence"]).tolist()
    weights = torch.tensor(token_weights(loss, counts, SET["length"]), dtype=torch.float64)
    return (each * weights[values["sequence"]]).sum()


def clipped(v: Values, dual: float = 0.0, old: str = "old") -> Tensor:
    return clipped_policy_loss(v["policy"], v[old], v["advantage"], LOW, HIGH, dual).loss


def corrected(v: Values, old: str = "old", cap: float = SET["importance_cap"]) -> Tensor:
    return clipped(v, old=old) * truncated_importance(v["policy"], v["engine"], cap)


def gated(v: Values) -> Tensor:
    passed = sequence_gate(v["policy"], v["engine"], v["sequence"], *SET["gate"])
    assert 0 < int(passed.sum()) < len(passed), "a gate that stops nothing, or all, shows nothing"
    return corrected(v, "own", 1e9) * passed


def masked(v: Values) -> Tensor:
    return clipped(v) * off_policy_kept(v["policy"], v["engine"], v["advantage"], v["sequence"], SET["mask"])


def kl(name: str) -> Callable[[Values], Tensor]:
    return lambda v: weighed(SET["kl_coef"] * kl_divergence(v["policy"], v["reference"], name), v, Loss.TOKEN_MEAN)


def both(v: Values) -> Tensor:
    each = clipped(v) + SET["kl_coef"] * kl_divergence(v["policy"], v["reference"])
    return weighed(each, v, Loss.TOKEN_MEAN)


def gspo(v: Values) -> Tensor:
    each = gspo_policy_loss(v["policy"], v["old"], v["advantage"], v["sequence"], LOW, HIGH).loss
    return weighed(each, v, Loss.GSPO)


def cispo(low: float, high: float) -> Callable[[Values], Tensor]:
    return lambda v: weighed(cispo_policy_loss(v["policy"], v["old"], v["advantage"], low, high).loss, v, Loss.CISPO)


def by_tokens(each: Callable[[Values], Tensor]) -> Callable[[Values], Tensor]:
    return lambda v: weighed(each(v), v, Loss.TOKEN_MEAN)


OURS: dict[str, Callable[[Values], Tensor]] = {
    **{
        f"{peer}/{loss.value}": lambda v, loss=loss: weighed(clipped(v), v, loss)  # type: ignore[misc]
        for peer in ("trl", "verl", "openrlhf")
        for loss in (Loss.TOKEN_MEAN, Loss.SEQUENCE_MEAN, Loss.DR_GRPO)
        if (peer, loss) != ("openrlhf", Loss.DR_GRPO)
    },
    **{f"{peer}/gspo": gspo for peer in ("trl", "verl", "openrlhf")},
    "trl/cispo": cispo(1.0, SET["cispo_high"] - 1.0),
    "verl/cispo": cispo(LOW, HIGH),
    "trl/importance": by_tokens(corrected),
    "verl/importance": by_tokens(corrected),
    # OpenRLHF clips against the trainer's own log-probabilities where it corrects for the engine's
    "openrlhf/importance": by_tokens(lambda v: corrected(v, "own")),
    "openrlhf/gate": by_tokens(gated),
    "verl/dual_clip": by_tokens(lambda v: clipped(v, SET["dual_clip"])),
    "openrlhf/dual_clip": by_tokens(lambda v: clipped(v, SET["dual_clip"])),
    "trl/off_policy_mask": by_tokens(masked),
    "trl/k3": both,
    **{f"verl/{name}": kl(name) for name in ("k1", "k2", "k3")},
}


def distance(case: str, batch: dict[str, Any]) -> tuple[float, float]:
    """Largest absolute difference of the loss and of its gradient."""
    mask, values = flat(batch["inputs"])
    policy = values["policy"].clone().requires_grad_()
    loss = OURS[case](values | {"policy": policy, "own": policy.detach()})
    loss.backward()
    gradient = torch.zeros(mask.shape, dtype=torch.float64)
    assert policy.grad is not None
    gradient[mask] = policy.grad
    theirs = batch["cases"][case]
    return abs(loss.item() - theirs["loss"]), float((gradient - torch.tensor(theirs["gradient"])).abs().max())


@pytest.mark.parametrize("batch", ORACLES["batches"], ids=lambda batch: f"seed{batch['seed']}")
@pytest.mark.parametrize("case", sorted(OURS))
def test_loss_and_gradient_equal_the_peers(case: str, batch: dict[str, Any]) -> None:
    loss, gradient = distance(case, batch)
    assert loss < 1e-6 and gradient < 1e-6


def test_every_case_of_the_peers_is_compared_and_the_cases_differ() -> None:
    """A setting that changed nothing in any batch would be a case that shows nothing."""
    losses: dict[str, tuple[float, ...]] = {
        case: tuple(round(batch["cases"][case]["loss"], 9) for batch in ORACLES["batches"]) for case in OURS
    }
    for peer in ("trl", "verl", "openrlhf"):
        own = [values for case, values in losses.items() if case.startswith(peer)]
        assert len(set(own)) == len(own) > 3, peer
    assert all(set(batch["cases"]) == set(OURS) for batch in ORACLES["batches"])


def test_the_two_peers_define_cispo_differently_and_ours_is_verls() -> None:
    batch = ORACLES["batches"][0]
    assert abs(batch["cases"]["trl/cispo"]["loss"] - batch["cases"]["verl/cispo"]["loss"]) > 1e-3
    assert distance("verl/cispo", batch)[0] < 1e-6


@pytest.mark.parametrize("batch", ORACLES["batches"], ids=lambda batch: f"seed{batch['seed']}")
@pytest.mark.parametrize("method", ["mean", "mean_std"])
def test_group_advantages_equal_verls(method: str, batch: dict[str, Any]) -> None:
    rewards, theirs = batch["advantages"]["rewards"], batch["advantages"]["verl"][method]
    ours = [a for start in (0, 4) for a in group_advantages(rewards[start : start + 4], method).advantages]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_numbers_say_where_they_are_from() -> None:
    assert set(ORACLES["packages"]) == {"trl", "verl", "openrlhf", "torch"}
    assert all(ORACLES["packages"].values()) and [batch["seed"] for batch in ORACLES["batches"]]
