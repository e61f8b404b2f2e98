"""The HTTP client against a real local server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.brains import Says
from fakes.clock import SteppedClock
from fakes.openai_server import FakeOpenAI, Running

from muarl_cli.conversation.protocols import BudgetSpent, InfraFault
from muarl_cli.engines.address import Address, resolve_address
from muarl_cli.engines.chat import ChatModel, ChatSampling, Finish, request_body
from muarl_cli.engines.limiter import Limiter
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.engines.wire import CONNECTIONS, RetryPolicy, Wire
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.ledger import Ledger, Price

HELLO = [{"role": "user", "content": "hello"}]
SAMPLING = ChatSampling(temperature=0.0, max_tokens=16)
QUICK = RetryPolicy(attempts=4, request_seconds=5.0, base_seconds=0.001)


def _wire(url: str, retry: RetryPolicy = QUICK, clock: SteppedClock | None = None) -> Wire:
    return Wire(resolve_address(url, {}), retry=retry, limiter=Limiter(CONNECTIONS, clock or SteppedClock()))


@pytest.mark.parametrize("trouble", ["429", "500", "503", "malformed", "reset", "408"])
async def test_passing_troubles_are_tried_again(trouble: str) -> None:
    fake = FakeOpenAI(Says("fine"), script=[trouble, trouble, ""])
    with Running(fake) as url:
        async with _wire(url) as wire:
            reply = await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert (reply.text, reply.finish, fake.count) == ("fine", Finish.STOP, 3)
    assert sum(wire.retries.values()) == 2


async def test_retry_after_is_waited_for_and_other_pauses_are_jittered_under_their_cap() -> None:
    clock = SteppedClock()
    fake = FakeOpenAI(Says("fine"), script=["429", "500", "500", ""])
    fake.troubles.retry_after = "7"
    retry = RetryPolicy(attempts=4, base_seconds=1.0, cap_seconds=1.5)
    with Running(fake) as url:
        async with _wire(url, retry, clock) as wire:
            await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert clock.pauses[0] == 7.0
    assert len(clock.pauses) == 3 and all(0.0 <= pause <= 1.5 for pause in clock.pauses[1:])


async def test_attempts_are_capped_and_then_it_is_a_fault_of_the_infrastructure() -> None:
    fake = FakeOpenAI(Says("never"), script=["500"] * 20)
    with Running(fake) as url:
        async with _wire(url) as wire:
            with pytest.raises(InfraFault, match="status 500"):
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert fake.count == QUICK.attempts


async def test_total_time_is_capped_too() -> None:
    fake = FakeOpenAI(Says("never"), script=["429"] * 20)
    fake.troubles.retry_after = "500"
    with Running(fake) as url:
        async with _wire(url, RetryPolicy(attempts=10, total_seconds=60.0)) as wire:
            with pytest.raises(InfraFault, match="429"):
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert fake.count == 1


async def test_a_reply_that_never_comes_is_a_time_out_and_then_a_fault() -> None:
    fake = FakeOpenAI(Says("late"), latency=30.0)
    with Running(fake) as url:
        async with _wire(url, RetryPolicy(attempts=2, request_seconds=0.05)) as wire:
            with pytest.raises(InfraFault, match="time-out"):
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("400", ExitCode.UNAVAILABLE),
        ("401", ExitCode.AUTH),
        ("403", ExitCode.AUTH),
        ("404", ExitCode.UNAVAILABLE),
        ("429:insufficient_quota", ExitCode.UNAVAILABLE),
    ],
)
async def test_permanent_refusals_stop_at_once_with_a_hint(trouble: str, code: ExitCode) -> None:
    fake = FakeOpenAI(Says("never"), script=[trouble] * 5)
    with Running(fake) as url:
        async with _wire(url) as wire:
            with pytest.raises(MuarlError) as refused:
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert refused.value.code is code
    assert refused.value.next_step
    assert fake.count == 1


async def test_a_conversation_that_is_too_long_and_a_filtered_one_are_no_errors_of_the_run() -> None:
    fake = FakeOpenAI(Says("never"), script=["400:context_length_exceeded", "400:content_filter", "filtered", "cut"])
    with Running(fake) as url:
        async with _wire(url) as wire:
            chat = ChatModel(wire, "m")
            with pytest.raises(ContextOverflow):
                await chat.reply(HELLO, SAMPLING)
            finishes = [(await chat.reply(HELLO, SAMPLING)).finish for _ in range(3)]
    assert finishes == [Finish.FILTERED, Finish.FILTERED, Finish.LENGTH]


async def test_check_names_the_nearest_served_model_and_an_address_that_does_not_answer() -> None:
    with Running(FakeOpenAI(Says("x"))) as url:
        async with _wire(url) as wire:
            await wire.check("m")
            with pytest.raises(MuarlError) as unknown:
                await wire.check("mm")
    assert "'m'" in unknown.value.next_step
    async with _wire(url) as gone:  # the server is stopped now
        with pytest.raises(MuarlError) as silent:
            await gone.check("m")
    assert silent.value.code is ExitCode.UNAVAILABLE


async def test_slow_replies_do_not_queue_behind_each_other() -> None:
    fake = FakeOpenAI(Says("fine"), latency=0.2)
    with Running(fake) as url:
        async with _wire(url) as wire:
            chat = ChatModel(wire, "m")
            await asyncio.gather(*(chat.reply(HELLO, SAMPLING) for _ in range(32)))
    assert fake.peak == 32


def test_one_wire_serves_several_event_loops_one_after_the_other() -> None:
    with Running(FakeOpenAI(Says("fine"))) as url:
        wire = _wire(url)

        async def once() -> str:
            try:
                return (await ChatModel(wire, "m").reply(HELLO, SAMPLING)).text
            finally:
                await wire.close()

        assert [asyncio.run(once()), asyncio.run(once())] == ["fine", "fine"]


async def test_a_proxy_in_the_environment_does_not_stand_before_a_local_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Running(FakeOpenAI(Says("fine"))) as url:
        async with _wire(url) as wire:
            assert (await ChatModel(wire, "m").reply(HELLO, SAMPLING)).text == "fine"


async def test_requests_equal_those_of_the_openai_sdk() -> None:
    import openai

    from muarl_cli.conversation.events import ToolClass
    from muarl_cli.conversation.tools import ToolSpec

    schema = {
        "type": "object",
        "properties": {
            "where": {"type": "object", "properties": {"zip": {"type": "string"}}},
            "n": {"type": "integer"},
        },
        "required": ["n"],
    }
    tool = ToolSpec("find", "finds — things", schema, ToolClass.READ)
    messages = [
        {"role": "system", "content": "be brief — «ça»"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": "find", "arguments": '{"n": 1}'}}]},
        {"role": "tool", "tool_call_id": "call00001", "content": "[]"},
        {"role": "user", "content": "hello"},
    ]  # fmt: skip
    fake = FakeOpenAI(Says("fine"))
    with Running(fake) as url:
        address = Address(url, "k", loopback=True)
        body = request_body(address, "m", messages, ChatSampling(0.7, 99, top_p=0.9, seed=5), [tool])
        async with Wire(address) as wire:
            ours = await wire.chat(body)
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            theirs = await client.chat.completions.create(
                model="m", messages=messages, max_tokens=99, temperature=0.7, top_p=0.9, seed=5, tools=[tool.openai()]
            )  # type: ignore[call-overload]
    one, two = fake.requests
    assert one["body"] == two["body"]
    for header in ("Authorization", "Content-Type", "Accept"):
        assert one["headers"][header] == two["headers"][header]
    assert ours["choices"][0]["message"]["content"] == theirs.choices[0].message.content == "fine"


async def test_a_paid_call_is_reserved_before_it_leaves_and_settled_by_what_it_used(tmp_path: Path) -> None:
    fake = FakeOpenAI(Says("four words of answer"), script=["", "500", ""])
    ledger = Ledger(tmp_path / "spend.jsonl", cap_usd=0.01)
    with Running(fake) as url:
        paid = Address(url, "k", loopback=False)
        wire = Wire(paid, retry=QUICK, ledger=ledger, prices={"m": Price(1.0, 100.0)})
        async with wire:
            chat = ChatModel(wire, "m")
            first = await chat.reply(HELLO, SAMPLING)
            assert first.usage.cost_usd == pytest.approx((1 * 1.0 + 4 * 100.0) / 1e6)
            assert ledger.spent() == (pytest.approx(first.usage.cost_usd), 0.0)
            await chat.reply(HELLO, SAMPLING)  # one attempt fails and costs nothing
            assert ledger.spent()[0] == pytest.approx(2 * first.usage.cost_usd)
            asked = fake.count
            with pytest.raises(BudgetSpent, match="max-usd"):
                await chat.reply(HELLO, ChatSampling(0.0, max_tokens=100_000))
    assert fake.count == asked


async def test_a_model_of_unknown_price_is_refused_before_any_call(tmp_path: Path) -> None:
    fake = FakeOpenAI(Says("x"))
    with Running(fake) as url:
        wire = Wire(Address(url, "k", loopback=False), ledger=Ledger(tmp_path / "spend.jsonl", 1.0))
        async with wire:
            with pytest.raises(MuarlError) as refused:
                await wire.check("m")
            with pytest.raises(MuarlError):
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert "MUARL_PRICES" in refused.value.next_step
    assert fake.count == 0
