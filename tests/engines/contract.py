"""What every engine promises, as functions to call with an engine and the model that it should compute with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import torch

from muarl_cli.engines.canary import canary_of
from muarl_cli.engines.protocol import Engine, Finish, Generation, Sampling

STOPS = (3, 4)
VOCAB = 97


def prompt(seed: int, length: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(7, VOCAB, (length,), generator=draw).tolist())


def expected(model: Any, ids: tuple[int, ...], drawn: Generation, temperature: float) -> torch.Tensor:
    """The model's own log-probabilities of what was drawn."""
    whole = torch.tensor([ids + drawn.ids])
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0, len(ids) - 1 : -1].float()
    return torch.log_softmax(logits / temperature, -1).gather(-1, torch.tensor(drawn.ids)[:, None])[:, 0]


async def draws_from_the_model_it_serves(engine: Engine, model: Any, atol: float) -> None:
    """Sampled ids come back with the log-probabilities that the model gives them at that temperature."""
    for number, temperature in enumerate((1.0, 0.7, 0.0)):
        ids = prompt(number, 20)
        drawn = await engine.generate(ids, Sampling(temperature, 1.0, 12, STOPS, 5), f"a{number}")
        found = expected(model, ids, drawn, temperature or 1.0)
        assert torch.allclose(torch.tensor(drawn.logprobs), found, atol=atol), (temperature, drawn.logprobs, found)
        assert 1 <= len(drawn.ids) <= 12 and len(drawn.logprobs) == len(drawn.ids)


async def stops_at_a_stop_token_or_at_the_limit(engine: Engine) -> None:
    finishes = set()
    for seed in range(12):
        drawn = await engine.generate(prompt(seed, 9), Sampling(1.3, 1.0, 10, STOPS, seed), f"s{seed}")
        assert all(token not in STOPS for token in drawn.ids[:-1])
        assert (drawn.finish is Finish.STOP) == (drawn.ids[-1] in STOPS)
        assert drawn.finish is Finish.STOP or len(drawn.ids) == 10
        finishes.add(drawn.finish)
    assert finishes == {Finish.STOP, Finish.LENGTH}, "a run in which only one of them happens shows nothing"


async def greedy_takes_the_likeliest(engine: Engine, model: Any) -> None:
    ids = prompt(3, 15)
    drawn = await engine.generate(ids, Sampling(0.0, 1.0, 6, STOPS, 1), "g")
    context = ids
    for token in drawn.ids:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([context])).logits[0, -1]
        assert int(logits.argmax()) == token
        context += (token,)


async def the_same_seed_draws_the_same_whoever_else_is_there(engine: Engine) -> None:
    ask = Sampling(1.0, 1.0, 10, STOPS, 77)
    alone = await engine.generate(prompt(8, 14), ask, "one")
    others = [engine.generate(prompt(100 + n, 5 + n), Sampling(1.0, 1.0, 10, STOPS, n), f"o{n}") for n in range(4)]
    again, *_ = await asyncio.gather(engine.generate(prompt(8, 14), ask, "two"), *others)
    other = await engine.generate(prompt(8, 14), Sampling(1.0, 1.0, 10, STOPS, 78), "three")
    assert again.ids == alone.ids
    assert other.ids != alone.ids


async def a_conversation_of_turns_costs_nothing_in_exactness(engine: Engine, model: Any, atol: float) -> None:
    """Each turn's prompt is everything so far, whatever the engine kept."""
    ids = prompt(21, 30)
    for turn in range(4):
        drawn = await engine.generate(ids, Sampling(1.0, 1.0, 8, STOPS, turn), "talk")
        assert torch.allclose(torch.tensor(drawn.logprobs), expected(model, ids, drawn, 1.0), atol=atol)
        ids = ids + drawn.ids + prompt(50 + turn, 7)
    engine.release("talk")
    engine.release("never there")


async def takes_new_weights(engine: Any, old: Any, new: Any, version: str, adapter: bool, atol: float) -> None:
    """After a sync nothing of the old weights is left: not behind a prompt that was cached with them either, which is
    longer than the blocks in which servers cache (the canary's is not)."""
    ids, ask = prompt(31, 300), Sampling(1.0, 1.0, 6, STOPS, 9)
    for _ in range(2):
        before = await engine.generate(ids, ask, "cached")
        assert torch.allclose(torch.tensor(before.logprobs), expected(old, ids, before, 1.0), atol=atol)
    await engine.share(new.save_pretrained, version, canary_of(new, "fp32"), adapter)
    for _ in range(2):  # what is loaded must stay loaded
        after = await engine.generate(ids, ask, "cached")
        assert torch.allclose(torch.tensor(after.logprobs), expected(new, ids, after, 1.0), atol=atol)
    assert after.weight_version == version != before.weight_version
    await draws_from_the_model_it_serves(engine, new, atol)


async def whole_contract(engine: Engine, model: Any, atol: float) -> None:
    capabilities = engine.capabilities
    assert capabilities.token_ids and capabilities.logprobs
    await draws_from_the_model_it_serves(engine, model, atol)
    await stops_at_a_stop_token_or_at_the_limit(engine)
    await greedy_takes_the_likeliest(engine, model)
    await the_same_seed_draws_the_same_whoever_else_is_there(engine)
    await a_conversation_of_turns_costs_nothing_in_exactness(engine, model, atol)


def run(what: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(what())  # type: ignore[arg-type]
