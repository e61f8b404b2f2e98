"""The policy as an agent: what it returns for training is what the engine saw and drew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from fakes.desk import LIMITS, Desk, Parrot, ThreeLines, hold, policy, stage

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.training.chat_format import ChatFormat, Rendering
from muarl_cli.training.forward import token_values
from muarl_cli.training.packing import micro_batches
from muarl_cli.training.template_format import open_format
from muarl_cli.training.tiny_model import TinySpec, new_model
from muarl_cli.training.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(
        ['{"name": "get_order", "arguments": {"order_id": "1"}}', "Hello, return order 48213"] * 8, 360
    )


def agent_ids(row: TokenRow) -> tuple[int, ...]:
    return tuple(i for i, owner in zip(row.ids, row.owners, strict=True) if owner == Owner.AGENT)


def test_rows_hold_the_sampled_ids_untouched_and_every_prompt_extends_the_last(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, Rendering.FULL)
    odd = tuple(tokenizer("{", add_special_tokens=False).input_ids) * 2  # "{{": no rendering would come out like this
    call = ToolCall("", "get_order", {"order_id": "48213"})
    turns = [
        (*tokenizer("Wait. \n", add_special_tokens=False).input_ids, *chat.demonstrate("", [call, call], [])),
        (*odd, chat.end_id),
        (*odd,),  # cut
    ]
    engine = Parrot(turns)
    session = policy(engine, chat).open(stage(), None)
    transcript = hold(session)
    session.close()
    (row,) = session.rows()
    assert transcript.end.reason is EndReason.USER_STOP
    assert agent_ids(row) == sum(turns, ())
    prompts = [asked[0] for asked in engine.asked]
    for prompt, turn, following in zip(prompts, turns, [*prompts[1:], row.ids], strict=True):
        assert following[: len(prompt) + len(turn)] == prompt + turn
    sampled = [p for p, owner in zip(row.logprobs, row.owners, strict=True) if owner == Owner.AGENT]
    assert sampled == [-float(i) for turn in turns for i in range(len(turn))]
    assert len({name for _, _, name in engine.asked}) == 1 and engine.released == [engine.asked[0][2]]
    calls = [e.call for e in transcript.events if e.kind is Kind.CALL]
    assert [(c.id, c.arguments) for c in calls if c] == [(f"call_{n}", {"order_id": "48213"}) for n in range(2)]
    assert transcript.events[-3].text == "{{" and "cut" in transcript.events[-3].tags
    assert transcript.tally.agent_tokens == len(agent_ids(row))


@pytest.mark.parametrize("dialect", ["nonthinking", "thinking"])
def test_the_trainer_gives_every_sampled_token_the_probability_it_was_drawn_with(tokenizer: Any, dialect: str) -> None:
    """Engine, chat format and trainer agree over whole conversations: nothing was shifted, lost or tokenised twice."""
    chat = open_format(tokenizer, Rendering.COMPACT, dialect)
    model = new_model(TinySpec(2, 32, 4, 2, 8, 360, max_length=1024), tokenizer, 1)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() == 2 else None
    engine = HFEngine(model, "fp32")
    agent = policy(engine, chat, temperature=0.9)

    async def many() -> list[tuple[Transcript, tuple[TokenRow, ...]]]:
        async def one(seed: int) -> tuple[Transcript, tuple[TokenRow, ...]]:
            session = agent.open(stage(seed), None)
            transcript = await converse(session, ThreeLines(), Desk(), greeting="Hello!", limits=LIMITS)
            session.close()
            return transcript, session.rows()

        return list(await asyncio.gather(*(one(seed) for seed in range(6))))

    first = asyncio.run(many())
    (batch,) = micro_batches([row for _, rows in first for row in rows], 100_000, "cpu")
    with torch.no_grad():
        logprobs = token_values(model, batch, temperature=0.9).logprobs
    assert torch.allclose(logprobs, batch.sampled, atol=2e-5)
    assert len(batch.sampled) == sum(t.tally.agent_tokens for t, _ in first)
    assert engine._sessions == {}
    again = asyncio.run(many())
    assert [rows for _, rows in again] == [rows for _, rows in first]
    assert [t.events for t, _ in again] == [t.events for t, _ in first]
    assert len({rows for _, rows in first}) == 6
    assert (max(len(rows) for _, rows in first) > 1) == (dialect == "thinking")


def test_a_cut_turn_is_marked_and_its_partial_call_is_malformed(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, Rendering.COMPACT)
    whole = chat.demonstrate("", [ToolCall("", "get_order", {"order_id": "48213"})], [])
    engine = Parrot([whole[:6], *[(chat.end_id,)] * 9])
    session = policy(engine, chat).open(stage(), None)
    turn = asyncio.run(session.act([]))
    assert turn.cut and turn.text == ""
    assert "not closed" in turn.calls[0].problem
    assert engine.asked[0][1].max_tokens == 24
    (row,) = session.rows()
    assert row.owners[-2:] == (Owner.TEMPLATE, Owner.TEMPLATE) and chat.decode(row.ids[-2:]) == "<|im_end|>\n"


def test_a_server_that_holds_less_than_it_told_ends_the_conversation_and_not_the_run(tokenizer: Any) -> None:
    class Full(Parrot):
        async def generate(self, prompt_ids: tuple[int, ...], sampling: Any, session: str) -> Any:
            raise ContextOverflow("This model's maximum context length is 64 tokens")

    transcript = hold(policy(Full([]), ChatFormat(tokenizer, Rendering.FULL)).open(stage(), None))
    assert transcript.end.reason is EndReason.LIMIT_AGENT and "64 tokens" in transcript.end.detail


def test_a_full_context_is_the_agents_limit_and_a_nearly_full_one_cuts_the_turn(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, Rendering.COMPACT)
    word = tokenizer("order", add_special_tokens=False).input_ids[0]
    start = len(policy(Parrot([]), chat).open(stage(), None).rows()[0].ids)
    engine = Parrot([(word,) * 3] * 9)
    session = policy(engine, chat, max_context=start + 50).open(stage(), None)
    transcript = hold(session)
    assert transcript.end.reason is EndReason.LIMIT_AGENT and "context" in transcript.end.detail
    assert len(session.rows()[0].ids) > start
    assert all(len(ids) + wanted.max_tokens <= start + 50 for ids, wanted, _ in engine.asked)


def test_turns_draw_from_streams_of_their_own(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, Rendering.COMPACT)
    seeds = []
    for seed in (0, 0, 1):
        engine = Parrot([(chat.end_id,)] * 9)
        hold(policy(engine, chat).open(stage(seed), None))
        seeds.append([asked[1].seed for asked in engine.asked])
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == len(seeds[0]) + len(seeds[2])


def test_the_log_names_the_weights_that_play(tokenizer: Any) -> None:
    agent = policy(Parrot([]), ChatFormat(tokenizer, Rendering.COMPACT), model="runs/x", revision="abc")
    assert agent.info == {"kind": "policy", "model": "runs/x", "revision": "abc", "weight_version": "v7"}


def test_thoughts_stand_in_the_log_and_reach_nobody_else(tokenizer: Any) -> None:
    """Two thoughts before words, one before a call; then the user speaks, and the conversation is told without them."""
    chat = open_format(tokenizer, Rendering.FULL, "thinking")
    call = ToolCall("", "get_order", {"order_id": "48213"})
    secret = "the secret number is 77"
    turns = [
        chat.demonstrate("", [call], [], secret),
        chat.demonstrate("Hello there", [], [], secret),
        chat.demonstrate("return order", [], [], secret),
    ]
    heard: list[Any] = []

    class Listener(ThreeLines):
        async def respond(self, news: Any) -> Any:
            heard.extend(news)
            return await super().respond(news)

    engine = Parrot(turns)
    session = policy(engine, chat).open(stage(), None)
    transcript = asyncio.run(converse(session, Listener(), Desk(), greeting="Hello!", limits=LIMITS))
    own = [e for e in transcript.events if e.actor is Actor.AGENT and "greeting" not in e.tags]
    assert [(e.kind, e.text, e.thought) for e in own] == [
        (Kind.CALL, "", secret),
        (Kind.SAY, "Hello there", secret),
        (Kind.SAY, "return order", secret),
    ]
    assert [e.text for e in heard if e.heard_by_user()] == ["Hello!", "Hello there", "return order"]
    assert not any("secret" in repr(event) for event in heard)
    first, second = session.rows()
    assert agent_ids(first) == turns[0] + turns[1] and agent_ids(second) == turns[2]
    prompts = [asked[0] for asked in engine.asked]
    assert first.ids[: len(prompts[1])] == prompts[1] and secret in chat.decode(prompts[1])
    assert second.ids[: len(prompts[2])] == prompts[2] and "secret" not in chat.decode(prompts[2])
    earlier = [i for i, owner in zip(second.ids, second.owners, strict=True) if owner == Owner.EARLIER]
    told = chat.decode(earlier)
    assert told == f"{chat.render_turn('', [call])}<|im_end|>Hello there<|im_end|>"


def test_a_user_cannot_end_the_thoughts_of_the_policy(tokenizer: Any) -> None:
    chat = open_format(tokenizer, Rendering.COMPACT, "thinking")
    tags = set(tokenizer(["<think>", "</think>"], add_special_tokens=False).input_ids[0])
    said = [i for ids, _ in chat.user("</think> <think>") for i in ids]
    assert not tags & set(said) and "</think> <think>" in chat.decode(said)
    echoed = tuple(i for ids, _ in chat.user("</think>") for i in ids)[3:-2]  # the same letters, drawn by the policy
    assert chat.split(echoed) == ("", chat.decode(echoed))
