"""The in-process engine against the model's own forward pass, and the promises of its batching."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from muarl_cli.beginnings import common_length
from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Engine, Finish, Generation, Sampling
from muarl_cli.errors import MuarlError

VOCAB = 97
STOPS = (3, 4, 5, 6)


def make_model(kind: str = "qwen3", kv_heads: int = 2, **more: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        **more,
    }
    if kind == "qwen2":
        shape.pop("head_dim")
    config, family = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[kind]
    torch.manual_seed(0)
    return family(config(**shape)).eval()


def sampling(seed: int = 0, *, temperature: float = 1.0, top_p: float = 1.0, tokens: int = 12) -> Sampling:
    return Sampling(temperature, top_p, tokens, STOPS, seed)


def prompt(seed: int, length: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(7, VOCAB) for _ in range(length))


def ask(engine: HFEngine, *requests: tuple[tuple[int, ...], Sampling, str]) -> list[Generation]:
    async def all_at_once() -> list[Generation]:
        return await asyncio.gather(*(engine.generate(*request) for request in requests))

    return asyncio.run(all_at_once())


def own_logprobs(model: Any, given_ids: tuple[int, ...], drawn: Generation, temperature: float = 1.0) -> torch.Tensor:
    """The model's own forward over everything, at the drawn tokens."""
    ids = torch.tensor([given_ids + drawn.ids])
    with torch.no_grad():
        logits = model(ids).logits[0, len(given_ids) - 1 : -1].float()
    return torch.log_softmax(logits / temperature, -1).gather(-1, torch.tensor(drawn.ids)[:, None])[:, 0]


def assert_equal_to_model(model: Any, given_ids: tuple[int, ...], drawn: Generation, temperature: float = 1.0) -> None:
    expected = own_logprobs(model, given_ids, drawn, temperature)
    assert torch.allclose(torch.tensor(drawn.logprobs), expected, atol=2e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama"])
def test_ragged_batches_have_the_log_probabilities_of_the_models_own_forward(kind: str, kv_heads: int) -> None:
    model = make_model(kind, kv_heads)
    engine = HFEngine(model, "fp32")
    assert isinstance(engine, Engine)
    requests = [(prompt(n, 1 + 9 * n), sampling(n, tokens=3 + 4 * n), f"s{n}") for n in range(7)]
    for (given_ids, wanted, _), drawn in zip(requests, ask(engine, *requests), strict=True):
        assert_equal_to_model(model, given_ids, drawn)
        assert (drawn.finish is Finish.STOP) == (drawn.ids[-1] in STOPS)
        assert not set(drawn.ids[:-1]) & set(STOPS)
        assert drawn.finish is Finish.STOP or len(drawn.ids) == wanted.max_tokens
    engine.close()


def test_greedy_turns_equal_generate() -> None:
    model = make_model()
    given_ids = prompt(1, 20)
    (drawn,) = ask(HFEngine(model, "fp32"), (given_ids, sampling(temperature=0.0, tokens=30), "a"))
    plain = model.generate(
        torch.tensor([given_ids]), do_sample=False, max_new_tokens=30, eos_token_id=list(STOPS), pad_token_id=0
    )
    assert list(drawn.ids) == plain[0, len(given_ids) :].tolist()


def converse(engine: HFEngine, sessions: int, turns: int, together: bool = True) -> list[list[Generation]]:
    """Several conversations of several turns, with ragged additions between the turns."""

    async def one(number: int) -> list[Generation]:
        ids = prompt(999, 40) + prompt(number, number)
        drawn = []
        for turn in range(turns):
            drawn.append(await engine.generate(ids, sampling(100 * number + turn), f"{number:03d}"))
            ids += drawn[-1].ids + prompt(1000 * number + turn, 1 + (number + turn) % 5)
        engine.release(f"{number:03d}")
        return drawn

    async def everyone() -> list[list[Generation]]:
        if together:
            return list(await asyncio.gather(*(one(number) for number in range(sessions))))
        return [await one(number) for number in range(sessions)]

    return asyncio.run(everyone())


def test_a_cache_kept_across_turns_draws_what_a_fresh_engine_draws() -> None:
    model = make_model()
    engine = HFEngine(model, "fp32")
    turns = converse(engine, sessions=1, turns=4)[0]
    ids = prompt(999, 40)
    for turn, drawn in enumerate(turns):
        (fresh,) = ask(HFEngine(model, "fp32"), (ids, sampling(turn), "x"))
        assert fresh.ids == drawn.ids
        ids += drawn.ids + prompt(turn, 1 + turn % 5)
    assert engine.stats["fed_tokens"] < engine.stats["prompt_tokens"]


def test_what_a_row_draws_does_not_depend_on_who_else_is_in_the_batch() -> None:
    model = make_model()
    together = converse(HFEngine(model, "fp32"), sessions=9, turns=4)
    alone = converse(HFEngine(model, "fp32"), sessions=9, turns=4, together=False)
    small = converse(HFEngine(model, "fp32", max_batch=2), sessions=9, turns=4)
    assert [[g.ids for g in s] for s in together] == [[g.ids for g in s] for s in alone]
    assert [[g.ids for g in s] for s in together] == [[g.ids for g in s] for s in small]


def test_the_same_conversations_draw_the_same_bits_twice() -> None:
    model = make_model()
    engines = [HFEngine(model, "fp32") for _ in range(2)]
    first, second = (converse(engine, sessions=8, turns=3) for engine in engines)
    assert first == second
    assert engines[0].stats == engines[1].stats
    assert engines[0].stats["rows"] == 24


def test_sessions_whose_turns_end_together_are_fed_together() -> None:
    engine = HFEngine(make_model(), "fp32")

    async def one(number: int) -> None:
        ids = prompt(number, 10 + number)
        for turn in range(3):
            drawn = await engine.generate(ids, Sampling(1.0, 1.0, 9, (), turn), f"{number}")
            ids += drawn.ids + prompt(turn, 2)

    async def everyone() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))

    asyncio.run(everyone())
    assert engine.stats["joins"] == 3


def test_a_turn_that_is_over_is_answered_and_its_session_comes_back_while_a_longer_one_goes_on() -> None:
    """The newcomer needs more room than there is, so the running row moves to a larger cache."""
    engine = HFEngine(make_model(), "fp32")
    order: list[str] = []

    async def turn(name: str, ids: tuple[int, ...], tokens: int) -> Generation:
        drawn = await engine.generate(ids, Sampling(1.0, 1.0, tokens, (), 1), name)
        order.append(name)
        return drawn

    async def short() -> None:
        first = await turn("short", prompt(1, 20), 5)
        ids = prompt(1, 20) + first.ids + prompt(2, 300)
        assert_equal_to_model(engine.model, ids, await turn("short", ids, 6))

    async def main() -> Generation:
        return (await asyncio.gather(turn("long", prompt(3, 5), 60), short()))[0]

    assert_equal_to_model(engine.model, prompt(3, 5), asyncio.run(main()))
    assert order == ["short", "short", "long"]
    assert engine.stats["joins"] == 2


def test_who_comes_late_joins_those_who_draw() -> None:
    engine = HFEngine(make_model(), "fp32")

    async def main() -> tuple[Generation, Generation]:
        early = asyncio.create_task(engine.generate(prompt(1, 5), Sampling(1.0, 1.0, 450, (), 0), "a"))
        while not engine.stats["rows"]:
            await asyncio.sleep(0.001)
        late = await engine.generate(prompt(2, 7), Sampling(1.0, 1.0, 3, (), 0), "b")
        return late, await early

    late, early = asyncio.run(main())
    assert_equal_to_model(engine.model, prompt(2, 7), late)
    assert_equal_to_model(engine.model, prompt(1, 5), early)
    assert len(early.ids) == 450 and engine.stats["joins"] == 2


def test_rows_with_other_stop_tokens_and_another_nucleus_share_a_batch_and_draw_as_if_alone() -> None:
    model = make_model()
    kinds = [(1.0, ()), (0.5, (3, 4, 5, 6)), (0.9, tuple(range(7, 60))), (1.0, (8,))]
    requests = [
        (prompt(n, 10 + n), Sampling(1.0, top_p, 12 + 3 * n, stops, n), f"s{n}")
        for n, (top_p, stops) in enumerate(kinds)
    ]
    engine = HFEngine(model, "fp32")
    together = ask(engine, *requests)
    assert engine.stats["joins"] == 1
    for request, drawn in zip(requests, together, strict=True):
        (alone,) = ask(HFEngine(model, "fp32"), request)
        assert alone.ids == drawn.ids and alone.finish is drawn.finish
        assert torch.allclose(torch.tensor(alone.logprobs), torch.tensor(drawn.logprobs), atol=2e-5)


def test_prompts_that_begin_alike_are_prefilled_once() -> None:
    engine = HFEngine(make_model(), "fp32")
    shared = prompt(5, 60)
    requests = [((*shared, 10 + n), sampling(n), f"s{n}") for n in range(6)]
    drawn = ask(engine, *requests)
    assert engine.stats["fed_tokens"] == 6
    for (given_ids, _, _), generation in zip(requests, drawn, strict=True):
        assert_equal_to_model(engine.model, given_ids, generation)
    later = (*shared[:50], 7, 8)
    assert_equal_to_model(engine.model, later, ask(engine, (later, sampling(9), "late"))[0])
    assert engine.stats["fed_tokens"] == 8


def test_a_rewritten_history_is_computed_again_from_where_it_differs() -> None:
    engine = HFEngine(make_model(), "fp32")
    ask(engine, (prompt(1, 30), sampling(), "s"))
    changed = prompt(1, 20) + prompt(2, 15)
    before = engine.stats["fed_tokens"]
    (drawn,) = ask(engine, (changed, sampling(1), "s"))
    assert engine.stats["fed_tokens"] - before == 15
    assert_equal_to_model(engine.model, changed, drawn)


def test_after_a_sync_nothing_of_the_old_weights_is_used() -> None:
    model = make_model()
    engine = HFEngine(model, "fp32", weight_version="v0")
    requests = [(prompt(7, 50) + prompt(n, 3), sampling(n), f"s{n}") for n in range(3)]
    assert ask(engine, *requests)[0].weight_version == "v0"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    asyncio.run(engine.sync(None, "v1"))
    longer = [((*ids, 11), wanted, name) for ids, wanted, name in requests]
    for (given_ids, _, _), drawn in zip(longer, ask(engine, *longer), strict=True):
        assert drawn.weight_version == "v1"
        assert_equal_to_model(model, given_ids, drawn)
    other = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    asyncio.run(engine.sync(other, "v2"))
    assert torch.equal(model.state_dict()["model.norm.weight"], other["model.norm.weight"])


def test_a_released_session_leaves_nothing_behind() -> None:
    engine = HFEngine(make_model(), "fp32")
    converse(engine, sessions=4, turns=2)
    assert engine._sessions == {}
    engine.release("never opened")


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_log_probabilities_belong_to_the_distribution_drawn_from(temperature: float) -> None:
    model = make_model()
    given_ids = prompt(3, 10)
    (drawn,) = ask(HFEngine(model, "fp32"), (given_ids, sampling(temperature=temperature), "s"))
    assert_equal_to_model(model, given_ids, drawn, temperature)


def test_greedy_and_sampled_rows_share_a_batch() -> None:
    model = make_model()
    engine = HFEngine(model, "fp32")
    given_ids = prompt(3, 10)
    greedy, sampled = ask(
        engine, (given_ids, sampling(temperature=0.0), "a"), (given_ids, sampling(5, temperature=1.5), "b")
    )
    assert engine.stats["joins"] == 1
    assert_equal_to_model(model, given_ids, greedy)
    assert_equal_to_model(model, given_ids, sampled, 1.5)


def test_an_adapter_inside_the_layers_is_obeyed() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    adapted = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval()
    given_ids = prompt(3, 10)
    (drawn,) = ask(HFEngine(adapted, "fp32"), (given_ids, sampling(tokens=6), "s"))
    assert_equal_to_model(adapted, given_ids, drawn)
    with adapted.disable_adapter():
        bare = own_logprobs(adapted, given_ids, drawn)
    assert not torch.allclose(torch.tensor(drawn.logprobs), bare, atol=1e-3)


def test_bf16_products_agree_with_the_models_own_bf16_forward() -> None:
    """Over fp32 weights (autocast), and with weights in bf16."""
    given_ids = prompt(3, 30)
    for model in (make_model(), make_model().to(torch.bfloat16)):
        (drawn,) = ask(HFEngine(model, "bf16"), (given_ids, sampling(tokens=20), "s"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = own_logprobs(model, given_ids, drawn)
        assert torch.allclose(torch.tensor(drawn.logprobs), expected, atol=0.08)


def test_a_failed_batch_fails_its_conversations_and_no_later_one() -> None:
    engine = HFEngine(make_model(), "fp32")
    bad = (VOCAB + 5,)  # no such token: the embedding raises
    with pytest.raises(IndexError):
        ask(engine, (bad, sampling(), "bad"))
    (drawn,) = ask(engine, (prompt(1, 5), sampling(), "good"))
    assert drawn.ids


def test_a_cancelled_conversation_holds_nobody_up() -> None:
    engine = HFEngine(make_model(), "fp32")

    async def main() -> Generation:
        doomed = asyncio.create_task(engine.generate(prompt(1, 5), sampling(), "a"))
        kept = asyncio.create_task(engine.generate(prompt(2, 5), sampling(), "b"))
        await asyncio.sleep(0)
        doomed.cancel()
        engine.release("a")
        return await kept

    assert_equal_to_model(engine.model, prompt(2, 5), asyncio.run(main()))
    assert set(engine._sessions) == {"b"}


def test_the_event_loop_is_free_while_a_batch_is_drawn() -> None:
    """A party that waits for the outside world is served during a long turn."""
    engine = HFEngine(make_model(), "fp32")
    served = 0

    async def main() -> int:
        nonlocal served
        turn = asyncio.create_task(engine.generate(prompt(1, 5), Sampling(1.0, 1.0, 400, (), 0), "a"))
        while not turn.done():
            await asyncio.sleep(0.001)
            served += 1
        return len((await turn).ids)

    assert asyncio.run(main()) == 400
    assert served > 3


def test_one_engine_serves_one_event_loop_after_the_other() -> None:
    engine = HFEngine(make_model(), "fp32")
    assert [ask(engine, (prompt(1, 5), sampling(), "a"))[0].ids for _ in range(3)]


def test_what_cannot_fit_is_refused_before_work_starts() -> None:
    engine = HFEngine(make_model(), "fp32")
    with pytest.raises(ValueError, match="exceed the model's 512"):
        ask(engine, (prompt(1, 505), sampling(tokens=8), "a"))
    with pytest.raises(ValueError, match="room for one token"):
        ask(engine, (prompt(1, 5), sampling(tokens=0), "a"))


def test_models_it_does_not_know_are_refused_with_a_way_out() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20))
    with pytest.raises(MuarlError, match="gpt2") as refused:
        HFEngine(tiny, "fp32")
    assert "vLLM" in refused.value.next_step
    sliding = make_model(use_sliding_window=True, sliding_window=8, max_window_layers=0)
    with pytest.raises(MuarlError, match="sliding"):
        HFEngine(sliding, "fp32")


@hypothesis_settings(max_examples=200)
@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_common_length_is_the_longest_shared_beginning(one: list[int], other: list[int]) -> None:
    expected = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert common_length(one, other) == expected
