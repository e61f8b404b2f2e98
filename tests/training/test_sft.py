"""Fine-tuning: the loss is the agent's, a cut run is the straight run, and nothing else decides."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.toys import shared_toy, toy_model, toy_row
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import MuarlError
from muarl_cli.training.sft import SftSpec, SftTrainer
from muarl_cli.training.tiny_model import load_model

SPEC = SftSpec(
    batch=3,
    micro_batch_tokens=40,
    epochs=4,
    max_steps=0,
    lr=1e-2,
    schedule="cosine",
    warmup_steps=2,
    weight_decay=0.01,
    betas=(0.9, 0.95),
    grad_clip=1.0,
)
ROWS = [toy_row(seed, length) for seed, length in enumerate((12, 20, 7, 16, 9, 24, 5, 11))]


def _gradient(rows: list[TokenRow], model: Any, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of the first step over all `rows`, and its gradient (the weights are left alone)."""
    trainer = SftTrainer(model, rows, replace(SPEC, batch=len(rows), **changes), seed=1)
    seen = {}
    trainer.optimiser.apply = lambda lr, clip: seen.update(trainer.optimiser.gradients()) or 1.0  # type: ignore
    loss = trainer.step()["loss"]
    return loss, seen


def _plain_loss(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    """Mean negative log-likelihood over all agent tokens: one row at a time, through the model's own forward."""
    parts = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
        parts += [
            -torch.log_softmax(logits[t - 1], -1)[row.ids[t]]
            for t in range(1, len(row.ids))
            if row.owners[t] == Owner.AGENT
        ]
    return torch.stack(parts).mean()


def _assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def test_the_gradient_is_that_of_the_mean_over_all_agent_tokens_of_the_step() -> None:
    model = toy_model()
    loss, found = _gradient(ROWS, model)
    plain = _plain_loss(model, ROWS)
    plain.backward()
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    _assert_same(found, {n: p.grad for n, p in model.named_parameters()}, atol=1e-6)


@settings(max_examples=15)
@given(st.integers(1, 200), st.permutations(range(len(ROWS))))
def test_neither_the_split_nor_the_order_of_rows_changes_the_gradient(budget: int, order: list[int]) -> None:
    model = shared_toy()
    loss, whole = _gradient(ROWS, model, micro_batch_tokens=10_000)
    other, split = _gradient([ROWS[i] for i in order], model, micro_batch_tokens=budget)
    assert other == pytest.approx(loss, rel=1e-5)
    _assert_same(split, whole, atol=1e-6)


def test_other_parties_tokens_are_seen_and_never_learned() -> None:
    """The words of others change what is predicted after them, but have no share in the loss."""
    ids = tuple(range(1, 11))
    owners = tuple(int(o) for o in [Owner.TEMPLATE] * 3 + [Owner.USER] * 3 + [Owner.AGENT] * 2 + [Owner.WORLD] * 2)
    row = TokenRow(ids, owners, (0.0,) * 10)
    model = shared_toy()
    loss, gradient = _gradient([row], model)
    cut, same = _gradient([TokenRow(ids[:8], owners[:8], (0.0,) * 8)], model)
    assert cut == pytest.approx(loss, rel=1e-6)
    _assert_same(same, gradient, atol=1e-7)
    assert _gradient([replace(row, ids=(1, 2, 3, 20, 21, 22, *ids[6:]))], model)[0] != pytest.approx(loss)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(cut: int, dropout: float) -> None:
    straight = toy_model(attention_dropout=dropout)
    begun = copy.deepcopy(straight)
    spec = replace(SPEC, batch=2)
    trainer = SftTrainer(straight, ROWS, spec, seed=5)
    metrics = [trainer.step() for _ in range(10)]

    first = SftTrainer(begun, ROWS, spec, seed=5)
    early = [first.step() for _ in range(cut)]
    tensors, info = first.state()
    resumed = copy.deepcopy(begun)  # the weights travel in the model folder
    tensors = {name: value.clone() for name, value in tensors.items()}
    torch.manual_seed(99)
    second = SftTrainer(resumed, ROWS, spec, seed=5)
    second.load_state(tensors, info)
    assert second.position == first.position == (cut // 4, cut)
    late = [second.step() for _ in range(10 - cut)]

    assert early + late == metrics
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    ended, again = trainer.state(), second.state()
    assert ended[1] == again[1]
    assert ended[0].keys() == again[0].keys() and all(torch.equal(v, again[0][n]) for n, v in ended[0].items())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_checkpoint_on_disk_holds_all_that_a_resume_needs(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    toy_model().save_pretrained(tmp_path / "start")
    straight = load_model(tmp_path / "start", dtype)
    trainer = SftTrainer(straight, ROWS, SPEC, seed=5)
    for _ in range(3):
        trainer.step()
    tensors, info = trainer.state()
    straight.save_pretrained(tmp_path / "model")
    save_file(tensors, tmp_path / "optimiser.safetensors")
    written = json.dumps(info, allow_nan=False)

    resumed = load_model(tmp_path / "model", dtype)
    second = SftTrainer(resumed, ROWS, SPEC, seed=5)
    second.load_state(load_file(tmp_path / "optimiser.safetensors"), json.loads(written))
    assert [trainer.step() for _ in range(3)] == [second.step() for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("change", ["weights", "rows", "seed", "batch", "tensors"])
def test_a_state_is_refused_where_it_would_silently_go_on_as_another_run(change: str) -> None:
    model = toy_model()
    trainer = SftTrainer(model, ROWS, SPEC, seed=1)
    trainer.step()
    tensors, info = trainer.state()
    if change == "tensors":
        tensors = dict(list(tensors.items())[1:])
    other = SftTrainer(
        toy_model() if change == "weights" else model,
        ROWS[::-1] if change == "rows" else ROWS,
        replace(SPEC, batch=2) if change == "batch" else SPEC,
        seed=2 if change == "seed" else 1,
    )
    with pytest.raises(MuarlError, match=r"other|not those|does not fit"):
        other.load_state(tensors, info)


def test_every_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    trainer = SftTrainer(toy_model(), ROWS, replace(SPEC, epochs=2, lr=1e-9), seed=1)
    seen: list[TokenRow] = []
    positions = []
    while not trainer.done:
        positions.append(tuple(trainer.position))
        seen += trainer._next_rows()
        trainer.step()
    assert positions == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert sorted(seen[:8], key=ROWS.index) == sorted(seen[8:], key=ROWS.index) == ROWS
    assert seen[:8] != seen[8:]
    with pytest.raises(RuntimeError, match="6 steps"):
        trainer.step()


@pytest.mark.parametrize(
    ("epochs", "max_steps", "total"), [(2, 0, 6), (0, 5, 5), (2, 5, 5), (1, 50, 3), (0.5, 0, 2), (0, 0, 0)]
)
def test_training_ends_with_the_first_of_its_limits(epochs: float, max_steps: int, total: int) -> None:
    trainer = SftTrainer(shared_toy(), ROWS, replace(SPEC, epochs=epochs, max_steps=max_steps), seed=1)
    assert (trainer.total_steps, trainer.done) == (total, False)


def test_training_learns_the_agents_tokens_and_the_evaluation_sees_it() -> None:
    model = toy_model()
    trainer = SftTrainer(model, ROWS, replace(SPEC, epochs=60, lr=2e-2, batch=8), seed=1)
    before = trainer.eval_loss(ROWS)
    assert before["loss"] == pytest.approx(_plain_loss(model, ROWS).item(), rel=1e-5)
    steps = []
    while not trainer.done:
        steps.append(trainer.step())
    after = trainer.eval_loss(ROWS)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.3
    assert steps[-1]["step"] == 60 and steps[-1]["skipped"] == 0 and steps[0]["lr"] == pytest.approx(1e-2)
    assert not model.training


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing() -> None:
    model = toy_model()
    trainer = SftTrainer(model, ROWS, SPEC, seed=1)
    trainer.step()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    before = [p.clone() for p in model.parameters()]
    moments = {name: value.clone() for name, value in trainer.state()[0].items()}
    metrics = trainer.step()
    assert metrics["skipped"] == 1 and "loss" not in metrics
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(value, moments[name]) for name, value in trainer.state()[0].items())
    with torch.no_grad():
        model.model.norm.weight[0] = 1.0
    assert "loss" in trainer.step()


def test_every_step_draws_dropout_of_its_own_and_the_evaluation_none() -> None:
    spec = replace(SPEC, batch=1, lr=1e-30, weight_decay=0.0, epochs=5)
    trainer = SftTrainer(toy_model(attention_dropout=0.3), ROWS[1:2], spec, seed=1)
    outside = torch.random.get_rng_state()
    losses = [trainer.step()["loss"] for _ in range(5)]
    assert torch.equal(outside, torch.random.get_rng_state())
    assert len(set(losses)) == 5
    assert trainer.eval_loss(ROWS[1:2])["loss"] == pytest.approx(_plain_loss(shared_toy(), ROWS[1:2]).item(), rel=1e-5)


def test_rows_without_an_agent_token_are_left_out_and_counted() -> None:
    silent = TokenRow((1, 2, 3), (int(Owner.AGENT), 0, 1), (0.0,) * 3)  # its only agent token is never predicted
    assert SftTrainer(shared_toy(), [*ROWS, silent, TokenRow((), (), ())], SPEC, seed=1).left_out == 2
    with pytest.raises(MuarlError, match="nothing to learn"):
        SftTrainer(shared_toy(), [silent], SPEC, seed=1)


def test_bf16_weights_learn_at_rates_that_bf16_cannot_add() -> None:
    """An update of 1e-5 beside a weight near 1 is less than half of a bf16 step; fp32 masters keep it."""
    model = toy_model().to(torch.bfloat16)
    start = model.model.norm.weight.detach().clone()
    trainer = SftTrainer(model, ROWS, replace(SPEC, schedule="constant", lr=1e-4, batch=8, epochs=100), seed=1)
    trainer.step()
    assert torch.equal(model.model.norm.weight, start)
    while not trainer.done:
        trainer.step()
    assert int((model.model.norm.weight != start).sum()) > 8
    assert model.dtype == torch.bfloat16
    tensors, info = trainer.state()
    assert tensors["model.norm.weight|master"].dtype == torch.float32
    again = SftTrainer(copy.deepcopy(model), ROWS, replace(SPEC, batch=8, epochs=101), seed=1)
    again.load_state({name: value.clone() for name, value in tensors.items()}, info)
    assert all(torch.equal(value, again.state()[0][name]) for name, value in tensors.items())
