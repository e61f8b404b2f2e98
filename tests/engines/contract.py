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


def is_likeliest(model: Any, prompt: tuple[int, ...], found: Generation) -> bool:
    """Whether the model would have drawn this turn greedily, with these log-probabilities."""
    ids = torch.tensor([[*prompt, *found.ids]])
    with torch.no_grad():
        rows = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1)[len(prompt) - 1 : -1]
    best = rows.max(-1)
    return best.indices.tolist() == list(found.ids) and torch.allclose(
        best.values, torch.tensor(found.logprobs), atol=1e-4
    )


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


async def goes_on_with_new_weights_in_the_middle_of_a_turn(engine: Any, old: Any, new: Any, atol: float) -> None:
    """Weights are replaced while long turns are being drawn: up to there each token is what the old weights draw, and
    from there on what the new ones do, also of the beginning, of which nothing is left that the old ones computed. How
    far a turn is cannot be asked; so waits get longer until an update comes into its middle."""
    weights, changed = (old, new), list[int]()
    for attempt, wait in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 3.2)):
        before, after = weights[attempt % 2], weights[(attempt + 1) % 2]
        asked = [(prompt(60 + n, 20), Sampling(1.0, 1.0, 440, (), 90 + n)) for n in range(4)]
        turns = [asyncio.create_task(engine.generate(ids, ask, f"long{n}")) for n, (ids, ask) in enumerate(asked)]
        await asyncio.sleep(wait)
        await engine.share(after.save_pretrained, f"middle-{attempt}", canary_of(after, "fp32"), False)
        for (ids, _), drawn in zip(asked, await asyncio.gather(*turns), strict=True):
            found = torch.tensor(drawn.logprobs)
            of_old = torch.isclose(found, expected(before, ids, drawn, 1.0), atol=atol).tolist()
            of_new = torch.isclose(found, expected(after, ids, drawn, 1.0), atol=atol).tolist()
            parts = [at for at in range(len(found) + 1) if all(of_old[:at]) and all(of_new[at:])]
            assert parts, "tokens that neither the old weights nor the new ones draw"
            changed += [at for at in parts[:1] if 0 < at < len(found)]
        if changed:
            if attempt % 2 == 0:
                await engine.share(old.save_pretrained, "back", canary_of(old, "fp32"), False)
            return
    raise AssertionError("no update came into the middle of a turn")


async def ends_a_turn_with_the_adapter_that_it_began_with(engine: Any, old: Any, new: Any, atol: float) -> None:
    """Another adapter comes while long turns are being drawn; the next turn is drawn with that."""
    asked = [(prompt(60 + n, 20), Sampling(1.0, 1.0, 440, (), 90 + n)) for n in range(4)]
    turns = [asyncio.create_task(engine.generate(ids, ask, f"long{n}")) for n, (ids, ask) in enumerate(asked)]
    await asyncio.sleep(0.1)
    assert not any(turn.done() for turn in turns)
    await engine.share(new.save_pretrained, "middle", canary_of(new, "fp32"), True)
    for (ids, _), drawn in zip(asked, await asyncio.gather(*turns), strict=True):
        assert torch.allclose(torch.tensor(drawn.logprobs), expected(old, ids, drawn, 1.0), atol=atol)
    ids, ask = asked[0]
    after = await engine.generate(ids, ask, "long0")
    assert torch.allclose(torch.tensor(after.logprobs), expected(new, ids, after, 1.0), atol=atol)


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
