"""The GRPO update against the formula derived token by token, and what must not change it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from fakes.grpo_spec import SPEC
from fakes.toys import sampled_by, shared_toy, toy_model, toy_row
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import MuarlError
from muarl_cli.training.advantages import group_advantages
from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer, Sample
from muarl_cli.training.optim import MasterAdamW

ADVANTAGES = (0.7, -1.2, 0.4, -0.1, 1.3, -0.6)


@lru_cache(maxsize=4)
def _samples(temperature: float = 1.0, noise: float = 0.4) -> list[Sample]:
    """Six rows with holes, sampled by an engine whose log-probabilities differ from the model's by up to `noise`."""
    rows = [toy_row(seed, length) for seed, length in enumerate((12, 17, 7, 16, 9, 17))]
    seen = [sampled_by(shared_toy(), row, temperature, noise, seed) for seed, row in enumerate(rows)]
    return [Sample(row, advantage) for row, advantage in zip(seen, ADVANTAGES, strict=True)]


def _derived(model: Any, samples: list[Sample], spec: GrpoSpec, reference: Any = None) -> dict[str, float]:
    """The loss as the papers and the peers write it (TRL `dapo`, verl `token-mean`, both with `beta` x k3), one
    token at a time in float64 over the model's plain forward pass; its gradient lands in the model."""
    loss = torch.zeros((), dtype=torch.float64)
    seen = {"low": 0, "high": 0, "entropy": 0.0, "kl": 0.0, "mismatch_abs": 0.0, "mismatch_k3": 0.0, "count": 0}
    for sample in samples:
        row, advantage = sample.row, sample.advantage
        inputs = torch.tensor([row.ids])
        everything = torch.log_softmax(model(input_ids=inputs).logits[0].double() / spec.temperature, -1)
        if reference is not None:
            theirs = torch.log_softmax(reference(input_ids=inputs).logits[0].double() / spec.temperature, -1).detach()
        for t in range(1, len(row.ids)):
            if row.owners[t] != Owner.AGENT:
                continue
            logprob = everything[t - 1, row.ids[t]]
            ratio = torch.exp(logprob - row.logprobs[t])
            bounded = min(max(ratio.item(), 1 - spec.clip_low), 1 + spec.clip_high)
            # The smaller one counts; where that is the clipped one it is a constant.
            loss = loss - (bounded * advantage if bounded * advantage < ratio.item() * advantage else ratio * advantage)
            if reference is not None:
                away = theirs[t - 1, row.ids[t]] - logprob
                kl = torch.exp(away) - away - 1
                loss = loss + spec.kl_coef * kl
                seen["kl"] += kl.item()
            seen["count"] += 1
            seen["low"] += ratio.item() < 1 - spec.clip_low and advantage < 0
            seen["high"] += ratio.item() > 1 + spec.clip_high and advantage > 0
            seen["entropy"] -= (everything[t - 1].exp() * everything[t - 1]).sum().item()
            # KL(engine || trainer), estimated from the engine's draws: trainer/engine - 1 - log(trainer/engine)
            seen["mismatch_abs"] += abs(logprob.item() - row.logprobs[t])
            seen["mismatch_k3"] += ratio.item() - 1 - math.log(ratio.item())
    (loss / seen["count"]).backward()
    return {name: value / seen["count"] for name, value in seen.items()} | {"loss": loss.item() / seen["count"]}


def _gradient(model: Any, samples: list[Sample], spec: GrpoSpec = SPEC, reference: Any = None) -> Any:
    trainer = GrpoTrainer(model, spec, reference)
    metrics = trainer.accumulate(samples)
    gradient = trainer.optimiser.gradients()
    trainer.optimiser.discard()
    return metrics, gradient


def _assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_gradient_and_metrics_equal_the_formula_token_by_token(temperature: float, kl_coef: float) -> None:
    spec = replace(SPEC, temperature=temperature, kl_coef=kl_coef)
    reference = toy_model(seed=3) if kl_coef else None
    samples = _samples(temperature)
    model = toy_model()
    metrics, gradient = _gradient(model, samples, spec, reference)
    expected = _derived(model, samples, spec, reference)
    _assert_same(gradient, {n: p.grad for n, p in model.named_parameters()})
    for name in ("loss", "entropy", "mismatch_abs", "mismatch_k3", *(["kl"] if kl_coef else [])):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-4), name
    assert (metrics["clip_low"], metrics["clip_high"]) == pytest.approx((expected["low"], expected["high"]))
    assert metrics["clip_low"] > 0 and metrics["clip_high"] > 0
    assert ("kl" in metrics) == bool(kl_coef)


@settings(max_examples=15)
@given(st.integers(1, 150), st.permutations(range(6)))
def test_neither_the_split_nor_the_order_of_samples_changes_the_gradient(budget: int, order: list[int]) -> None:
    samples = _samples()
    metrics, whole = _gradient(shared_toy(), samples, replace(SPEC, micro_batch_tokens=10_000))
    others, split = _gradient(shared_toy(), [samples[i] for i in order], replace(SPEC, micro_batch_tokens=budget))
    _assert_same(split, whole)
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-6)


@settings(max_examples=15)
@given(st.integers(0, 5), st.integers(0, 1000))
def test_only_agent_tokens_have_a_gradient(index: int, seed: int) -> None:
    """What follows the agent's last word, and the numbers beside other parties' tokens, cannot change anything."""
    samples = _samples()
    _, expected = _gradient(shared_toy(), samples)
    row, advantage = samples[index].row, samples[index].advantage
    tail = toy_row(seed, 6)
    ids = (*row.ids, *tail.ids)
    owners = (*row.owners, *(int(Owner.WORLD) for _ in tail.ids))
    noise = tuple(p if o == Owner.AGENT else -5.0 for o, p in zip(owners, (*row.logprobs, *[0.0] * 6), strict=True))
    changed = [*samples[:index], Sample(TokenRow(ids, owners, noise), advantage), *samples[index + 1 :]]
    _, found = _gradient(shared_toy(), changed)
    _assert_same(found, expected)


def test_user_and_template_tokens_alone_have_no_gradient_at_all() -> None:
    row = toy_row(1, 20)
    others = TokenRow(row.ids, tuple(o if o != Owner.AGENT else int(Owner.USER) for o in row.owners), row.logprobs)
    _, gradient = _gradient(shared_toy(), [Sample(others, 5.0)])
    assert gradient == {}
    model = toy_model()
    before = [p.clone() for p in model.parameters()]
    metrics = GrpoTrainer(model, SPEC, None).update([Sample(others, 5.0)])
    assert (metrics["updates"], metrics["agent_tokens"], metrics["skipped"]) == (0, 0, 0)
    assert GrpoTrainer(model, SPEC, None).update([])["updates"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_invalid_sibling_moves_no_weight() -> None:
    """The whole way from rewards to weights: a group with a faulted episode learns what it would learn without it."""
    rows = [sample.row for sample in _samples(noise=0.0)][:4]

    def after(rewards: list[float | None], of: list[TokenRow]) -> Any:
        advantages = group_advantages(rewards, "mean").advantages
        samples = [Sample(r, a) for r, a, w in zip(of, advantages, rewards, strict=True) if w is not None]
        model = toy_model()
        GrpoTrainer(model, SPEC, None).update(samples)
        return list(model.parameters())

    with_fault = after([1.0, None, 0.0, 0.0], rows)
    without = after([1.0, 0.0, 0.0], [rows[0], *rows[2:]])
    counted_as_failure = after([1.0, 0.0, 0.0, 0.0], rows)
    assert all(torch.equal(a, b) for a, b in zip(with_fault, without, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(with_fault, counted_as_failure, strict=True))


def test_an_update_raises_what_was_good_and_lowers_what_was_bad() -> None:
    model = toy_model()
    rows = [sampled_by(model, toy_row(seed, 14)) for seed in (21, 22)]
    trainer = GrpoTrainer(model, replace(SPEC, lr=3e-3), None)
    metrics = trainer.update([Sample(rows[0], 1.0), Sample(rows[1], -1.0)])
    moved = [sum(sampled_by(model, row).logprobs) - sum(row.logprobs) for row in rows]
    assert moved[0] > 0 > moved[1]
    assert metrics["updates"] == 1 and metrics["grad_norm"] > 0
    assert metrics["mismatch_max"] < 1e-5 and abs(metrics["mismatch_k3"]) < 1e-6
    assert (metrics["clip_low"], metrics["clip_high"]) == (0.0, 0.0)


def test_the_mismatch_between_engine_and_trainer_is_always_reported() -> None:
    for updates in (1, 2):
        metrics = GrpoTrainer(toy_model(), replace(SPEC, updates_per_batch=updates), None).update(_samples(noise=0.4))
        assert 0.1 < metrics["mismatch_abs"] < metrics["mismatch_max"] <= 0.4 + 1e-5
        exact = [math.exp(d) - 1 - d for d in (0.4, -0.4)]
        assert 0 < metrics["mismatch_k3"] < max(exact)


def test_further_updates_clip_against_the_policy_at_the_start_and_not_against_the_engine() -> None:
    """With an engine that is far off, a first update against the trainer's own probabilities clips nothing; then the
    policy moves and the clip bites."""
    spec = replace(SPEC, updates_per_batch=4, lr=0.05)
    one, four = toy_model(), toy_model()
    first = GrpoTrainer(one, replace(spec, updates_per_batch=1), None, sampled_is_old=False).update(_samples())
    assert first["clip_low"] == first["clip_high"] == 0.0
    metrics = GrpoTrainer(four, spec, None).update(_samples())
    assert metrics["updates"] == 4
    assert metrics["clip_low"] > 0 and metrics["clip_high"] > 0
    assert metrics["mismatch_abs"] == pytest.approx(first["mismatch_abs"])
    still = GrpoTrainer(toy_model(), replace(spec, lr=1e-12), None).update(_samples())
    assert still["clip_low"] == still["clip_high"] == 0.0


def test_kl_holds_the_policy_at_its_reference() -> None:
    def far(kl_coef: float) -> float:
        model, reference = toy_model(), toy_model()
        trainer = GrpoTrainer(model, replace(SPEC, lr=5e-3, kl_coef=kl_coef), reference)
        for _ in range(15):
            samples = [Sample(sampled_by(model, s.row), s.advantage) for s in _samples()]
            metrics = trainer.update(samples)
        assert all(torch.equal(a, b) for a, b in zip(reference.parameters(), toy_model().parameters(), strict=True))
        return metrics["kl"]

    assert far(3.0) < 0.5 * far(1e-6)


def test_an_adapter_is_measured_against_its_own_base() -> None:
    peft = pytest.importorskip("peft")
    base = toy_model()
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=2, target_modules="all-linear")).eval()
    trainer = GrpoTrainer(model, replace(SPEC, kl_coef=0.1, lr=0.02), None)
    first = trainer.update(_samples(noise=0.0))
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    second, gradient = trainer.accumulate(_samples(noise=0.0)), trainer.optimiser.gradients()
    assert second["kl"] > 1e-4
    assert gradient and all("lora_" in name for name in gradient)
    expected = GrpoTrainer(model, replace(SPEC, kl_coef=0.1), base).accumulate(_samples(noise=0.0))
    assert second["kl"] == pytest.approx(expected["kl"], rel=1e-5)


@pytest.mark.parametrize("cut", [0, 2, 4])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(cut: int) -> None:
    spec = replace(SPEC, schedule="linear", total_steps=5, warmup_steps=2, updates_per_batch=2, lr=1e-2)
    straight = toy_model()
    trainer = GrpoTrainer(straight, spec, None)
    metrics = [trainer.update(_samples()) for _ in range(5)]

    begun = toy_model()
    first = GrpoTrainer(begun, spec, None)
    early = [first.update(_samples()) for _ in range(cut)]
    tensors, json = first.state()
    resumed = copy.deepcopy(begun)
    second = GrpoTrainer(resumed, spec, None)
    second.load_state({name: value.clone() for name, value in tensors.items()}, json)
    assert early + [second.update(_samples()) for _ in range(5 - cut)] == metrics
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert trainer.state()[1] == second.state()[1]
    if cut:
        with pytest.raises(MuarlError, match="not those"):
            GrpoTrainer(toy_model(), spec, None).load_state(tensors, json)


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing() -> None:
    model = toy_model()
    trainer = GrpoTrainer(model, SPEC, None)
    trainer.update(_samples())
    before = [p.clone() for p in model.parameters()]
    broken = [*_samples(), Sample(_samples()[0].row, math.nan)]
    metrics = trainer.update(broken)
    assert (metrics["updates"], metrics["skipped"]) == (0, 1)
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert trainer.update(_samples())["updates"] == 1
    assert trainer.step == 3


def test_an_infinite_loss_or_gradient_alone_stops_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()
    before = [p.clone() for p in model.parameters()]
    optimiser = MasterAdamW(model, 0.0, (0.9, 0.95))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.model.norm.weight.grad[0] = math.inf
    assert optimiser.apply(1.0, grad_clip=1.0) is None
    assert optimiser.state() == {} and optimiser.gradients() == {}

    trainer = GrpoTrainer(model, SPEC, None)
    finite = trainer.accumulate
    monkeypatch.setattr(trainer, "accumulate", lambda samples, memory: finite(samples, memory) | {"loss": math.inf})
    metrics = trainer.update(_samples())
    assert (metrics["updates"], metrics["skipped"]) == (0, 1) and "loss" not in metrics
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert trainer.optimiser.gradients() == {}


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature 0"):
        GrpoTrainer(shared_toy(), replace(SPEC, temperature=0.0), None)
    with pytest.raises(ValueError, match="reference"):
        GrpoTrainer(shared_toy(), replace(SPEC, kl_coef=0.1), None)


CHOICES = (
    {"loss": "sequence_mean"},
    {"loss": "dr_grpo"},
    {"loss": "gspo"},
    {"loss": "cispo"},
    {"clip_low": 0.05},
    {"clip_high": 0.05},
    {"dual_clip": 1.05},
    {"adaptive_clip": 5.0},
    {"importance_cap": 1.1},
    {"sequence_gate": (0.99, 1.01)},
    {"off_policy_mask": 0.02},
)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice))
def test_every_choice_of_the_loss_changes_the_gradient_and_none_is_changed_by_the_split(choice: dict[str, Any]) -> None:
    samples = [replace(sample, success_rate=0.2 * i) for i, sample in enumerate(_samples())]
    _, plain = _gradient(shared_toy(), samples)
    spec = replace(SPEC, **choice)
    _, whole = _gradient(shared_toy(), samples, replace(spec, micro_batch_tokens=10_000))
    assert any(not torch.allclose(whole[name], plain[name], rtol=1e-3, atol=1e-6) for name in plain)
    _, split = _gradient(shared_toy(), samples[::-1], replace(spec, micro_batch_tokens=5))
    _assert_same(split, whole)


def test_the_length_of_dr_grpo_scales_its_gradient() -> None:
    spec = replace(SPEC, loss="dr_grpo")
    _, short = _gradient(shared_toy(), _samples(), spec)
    _, long = _gradient(shared_toy(), _samples(), replace(spec, loss_length=20))
    _assert_same({name: 2 * value for name, value in long.items()}, short)


def _forked(sample: Sample, episode: int, cuts: list[int]) -> list[Sample]:
    """The same tokens in several rows, as a template that forgets makes them: each row repeats what was before it as
    context. Each agent token is the agent's in one of them only."""
    row, rows = sample.row, []
    places = sorted({cut % len(row.ids) for cut in cuts} - {0})
    for start, stop in zip([0, *places], [*places, len(row.ids)], strict=True):
        owners = tuple(
            int(Owner.EARLIER) if owner == Owner.AGENT and place < start else owner
            for place, owner in enumerate(row.owners[:stop])
        )
        rows.append(Sample(TokenRow(row.ids[:stop], owners, row.logprobs[:stop]), sample.advantage, episode))
    return rows


CUTS = st.lists(st.lists(st.integers(1, 200), max_size=4), min_size=7, max_size=7)


@pytest.mark.parametrize("loss", ["token_mean", "sequence_mean", "dr_grpo", "gspo", "cispo"])
@settings(max_examples=8, deadline=None)
@given(cuts=CUTS, budget=st.sampled_from([5, 90, 10_000]))
def test_the_number_of_rows_that_an_episode_forks_into_changes_nothing(
    loss: str, cuts: list[list[int]], budget: int
) -> None:
    """Neither loss nor gradient; the long episode's rows share their beginning."""
    spec = replace(SPEC, loss=loss, micro_batch_tokens=budget, sequence_gate=(0.2, 5.0))
    long = Sample(sampled_by(shared_toy(), toy_row(9, 70), noise=0.4), 0.9)
    samples = [*_samples(), long]
    said, whole = _gradient(shared_toy(), samples, spec)
    forked = [part for number, sample in enumerate(samples) for part in _forked(sample, number, cuts[number])]
    found, split = _gradient(shared_toy(), forked, spec)
    _assert_same(split, whole)
    assert found["loss"] == pytest.approx(said["loss"], abs=1e-6)
    assert found["gated"] == pytest.approx(said["gated"])


def test_an_advantage_for_each_token_is_that_token_s() -> None:
    samples = _samples()
    counts = [sum(o == Owner.AGENT for o in s.row.owners[1:]) for s in samples]
    same = [replace(s, advantage=(s.advantage,) * n) for s, n in zip(samples, counts, strict=True)]
    _, whole = _gradient(shared_toy(), samples)
    _, each = _gradient(shared_toy(), same)
    _assert_same(each, whole)
    last = [replace(s, advantage=(*(0.0,) * (n - 1), 1.0)) for s, n in zip(samples, counts, strict=True)]
    _, other = _gradient(shared_toy(), last)
    assert any(not torch.allclose(other[name], whole[name], rtol=1e-3, atol=1e-6) for name in whole)
    with pytest.raises(ValueError, match="one advantage"):
        _gradient(shared_toy(), [replace(samples[0], advantage=(1.0,) * (counts[0] + 1))])


def test_episodes_beyond_the_gate_are_counted_and_teach_nothing() -> None:
    near, far = _samples(noise=0.0)[:2]
    away = Sample(replace(far.row, logprobs=tuple(p - 1.0 for p in far.row.logprobs)), far.advantage)
    spec = replace(SPEC, sequence_gate=(0.9, 1.1))
    metrics, gated = _gradient(shared_toy(), [near, away], spec)
    _, alone = _gradient(shared_toy(), [near, replace(far, advantage=0.0)])
    _assert_same(gated, alone)
    tokens = [sum(o == Owner.AGENT for o in s.row.owners[1:]) for s in (near, far)]
    assert metrics["gated"] == pytest.approx(tokens[1] / sum(tokens))


def test_failures_beyond_the_off_policy_mask_are_counted_and_teach_nothing_and_successes_stay() -> None:
    near, far = _samples(noise=0.0)[:2]
    row = replace(far.row, logprobs=tuple(p + 1.0 for p in far.row.logprobs))
    spec = replace(SPEC, off_policy_mask=0.5)
    metrics, masked = _gradient(shared_toy(), [near, Sample(row, -1.0)], spec)
    _, alone = _gradient(shared_toy(), [near, Sample(row, 0.0)])
    _assert_same(masked, alone)
    tokens = [sum(o == Owner.AGENT for o in s.row.owners[1:]) for s in (near, far)]
    assert metrics["masked"] == pytest.approx(tokens[1] / sum(tokens))
    metrics, _ = _gradient(shared_toy(), [near, Sample(row, 1.0)], spec)
    assert metrics["masked"] == 0.0
    both, _ = _gradient(shared_toy(), [near, Sample(row, -1.0)], replace(spec, sequence_gate=(0.5, 2.0)))
    assert (both["gated"], both["masked"]) == (pytest.approx(tokens[1] / sum(tokens)), 0.0), "counted twice"
