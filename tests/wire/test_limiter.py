"""The limiter of an address: never more than its window, never before Retry-After, and who is served when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes.brains import Says
from fakes.clock import SteppedClock
from fakes.openai_server import FakeOpenAI, Running, Troubles
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.address import resolve_address
from muarl_cli.engines.chat import ChatModel, ChatSampling
from muarl_cli.engines.limiter import Limiter, limiter_of
from muarl_cli.engines.wire import REFUSALS, RetryPolicy, Wire, open_wire
from muarl_cli.errors import ExitCode, MuarlError

HELLO = [{"role": "user", "content": "hello"}]
SAMPLING = ChatSampling(temperature=0.0, max_tokens=16)


async def _spin() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Slots:
    """Tasks that hold a slot until they are told to let go."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter, self.held, self.tasks = limiter, list[int](), list[asyncio.Task[None]]()
        self.go = asyncio.Event()

    def ask(self, number: int) -> None:
        async def hold() -> None:
            async with self.limiter.slot():
                self.held.append(number)
                await self.go.wait()

        self.tasks.append(asyncio.create_task(hold()))

    async def end(self) -> None:
        self.go.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_no_more_than_the_window_is_in_flight_and_the_first_come_is_the_first_served() -> None:
    limiter = Limiter(3, SteppedClock())
    slots = Slots(limiter)
    for number in range(5):
        slots.ask(number)
    await _spin()
    assert (slots.held, limiter.in_flight) == ([0, 1, 2], 3)
    slots.tasks[1].cancel()
    await _spin()
    assert slots.held == [0, 1, 2, 3]
    await slots.end()
    assert slots.held == [0, 1, 2, 3, 4] and limiter.in_flight == 0


async def test_nobody_leaves_before_the_moment_that_was_named_even_if_it_is_put_off() -> None:
    clock = SteppedClock()
    limiter = Limiter(4, clock)
    limiter.wait(5.0)
    left: list[float] = []

    async def go() -> None:
        async with limiter.slot():
            left.append(clock.now())

    first = [asyncio.create_task(go()) for _ in range(3)]
    limiter.wait(7.0)
    await asyncio.gather(*first)
    assert left == [7.0, 7.0, 7.0]


def test_a_429_cuts_a_fifth_once_a_round_trip_and_replies_grow_the_window_back() -> None:
    async def play() -> list[float]:
        clock = SteppedClock()
        limiter = Limiter(10, clock)
        seen = []
        limiter.in_flight = 10
        limiter.replied(2.0)
        for _ in range(5):
            limiter.too_many()  # of one burst
        seen.append(limiter.window)
        clock.time += 2.0
        limiter.too_many()
        seen.append(limiter.window)
        for _ in range(3):
            limiter.replied(2.0)
        seen.append(limiter.window)
        for _ in range(100):
            limiter.replied(2.0)
        return [*seen, limiter.window]

    assert asyncio.run(play()) == pytest.approx([8.0, 6.4, 7.6, 10.0])


async def test_before_the_first_reply_one_burst_cuts_once() -> None:
    limiter = Limiter(256, SteppedClock())
    limiter.in_flight = 100
    for _ in range(50):
        limiter.too_many()
    assert (limiter.window, limiter.cuts) == (160.0, 1)


@given(st.lists(st.sampled_from(["ask", "end", "cancel", "429", "reply", "wait"]), max_size=60))
def test_whatever_happens_the_window_holds_and_no_slot_is_lost(steps: list[str]) -> None:
    async def play() -> None:
        clock = SteppedClock()
        limiter = Limiter(4, clock)
        gates: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def hold(gate: asyncio.Event) -> None:
            async with limiter.slot():
                assert limiter.in_flight <= 4
                await gate.wait()

        for step in steps:
            clock.time += 0.3
            if step == "ask":
                gate = asyncio.Event()
                gates.append((asyncio.create_task(hold(gate)), gate))
            elif step in ("end", "cancel") and gates:
                task, gate = gates.pop(0)
                _ = gate.set() if step == "end" else task.cancel()
            elif step == "429":
                limiter.too_many()
            elif step == "reply":
                limiter.replied(1.0)
            elif step == "wait":
                limiter.wait(0.5)
            await _spin()
            assert 1.0 <= limiter.window <= 4.0
        for _, gate in gates:
            gate.set()
        await asyncio.gather(*(task for task, _ in gates), return_exceptions=True)
        assert limiter.in_flight == 0
        async with limiter.slot():
            assert limiter.in_flight == 1

    asyncio.run(play())


# --- at the wire ------------------------------------------------------------------------------------------------------


class Watched(Wire):
    """A wire that notes when its requests left and when an address asked for quiet."""

    def __init__(self, url: str, retry: RetryPolicy, most: int = 256) -> None:
        super().__init__(resolve_address(url, {}), retry=retry, limiter=Limiter(most))
        self.quiet_until, self.early = 0.0, 0

    async def _once(self, method: str, path: str, payload: bytes | None) -> dict[str, object]:
        self.early += self.limiter.clock.now() < self.quiet_until
        try:
            return await super()._once(method, path, payload)
        except Exception as error:
            if (after := getattr(error, "after", None)) is not None:
                self.quiet_until = max(self.quiet_until, self.limiter.clock.now() + after)
            raise


async def test_in_a_storm_of_troubles_every_call_is_answered_and_none_leaves_before_retry_after() -> None:
    fates = ["429", "", "500", "", "429", "malformed", "", "429", "", "500"] * 6 + ["hang"]
    fake = FakeOpenAI(Says("fine"), 0.01, Troubles(retry_after="0.05"), script=fates)
    patient = RetryPolicy(attempts=40, request_seconds=3.0, base_seconds=0.01)  # a busy machine is no trouble
    with Running(fake) as url:
        async with Watched(url, patient, most=16) as wire:
            chat = ChatModel(wire, "m")
            replies = await asyncio.gather(*(chat.reply(HELLO, SAMPLING) for _ in range(80)))
    assert {reply.text for reply in replies} == {"fine"}
    assert wire.early == 0
    assert {"429 too many requests", "status 500", "time-out", "reply is not JSON"} <= set(wire.retries)
    assert wire.limiter.cuts > 0


async def test_a_full_address_is_asked_for_less_and_an_erring_one_is_not() -> None:
    windows = {}
    for trouble in ("429", "500"):
        fake = FakeOpenAI(Says("fine"), script=[trouble] * 3 + [""])
        with Running(fake) as url:
            wire = Wire(resolve_address(url, {}), limiter=Limiter(8, SteppedClock()))
            async with wire:
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)
            windows[trouble] = wire.limiter.window
    assert windows["429"] < windows["500"] == 8.0


async def test_a_429_is_a_wait_and_no_attempt() -> None:
    fake = FakeOpenAI(Says("fine"), script=["429"] * 12 + ["500", "429", "500", ""])
    with Running(fake) as url:
        wire = Wire(resolve_address(url, {}), retry=RetryPolicy(attempts=3), limiter=Limiter(8, SteppedClock()))
        async with wire:
            assert (await ChatModel(wire, "m").reply(HELLO, SAMPLING)).text == "fine"
    with Running(FakeOpenAI(Says("never"), script=["500"] * 3 + [""])) as url:
        wire = Wire(resolve_address(url, {}), retry=RetryPolicy(attempts=3), limiter=Limiter(8, SteppedClock()))
        async with wire:
            with pytest.raises(InfraFault):
                await ChatModel(wire, "m").reply(HELLO, SAMPLING)


@pytest.mark.parametrize(("status", "code"), [("401", ExitCode.AUTH), ("404", ExitCode.UNAVAILABLE)])
async def test_a_key_or_model_that_goes_away_stops_the_run_with_its_third_refusal(status: str, code: ExitCode) -> None:
    fake = FakeOpenAI(Says("fine"), script=["", *[status] * 50])
    with Running(fake) as url:
        wire = Wire(resolve_address(url, {}), limiter=Limiter(1, SteppedClock()))
        async with wire:
            chat = ChatModel(wire, "m")
            await chat.reply(HELLO, SAMPLING)
            results = await asyncio.gather(*(chat.reply(HELLO, SAMPLING) for _ in range(16)), return_exceptions=True)
    assert all(isinstance(r, MuarlError) and r.code is code for r in results)
    assert fake.count == 1 + REFUSALS


async def test_a_passing_refusal_of_a_gateway_stops_nothing() -> None:
    fake = FakeOpenAI(Says("fine"), script=["", "404", "401", "", "404", "404", ""])
    with Running(fake) as url:
        wire = Wire(resolve_address(url, {}), limiter=Limiter(1, SteppedClock()))
        async with wire:
            chat = ChatModel(wire, "m")
            assert [(await chat.reply(HELLO, SAMPLING)).text for _ in range(3)] == ["fine"] * 3


async def test_all_who_talk_to_an_address_share_its_limiter(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    wires = [open_wire(url, max_usd=0.0, ledger=tmp_path / "spend") for _ in range(2)]
    assert wires[0].limiter is wires[1].limiter is limiter_of(url, 256)
    assert open_wire("http://127.0.0.1:10/v1", max_usd=0.0, ledger=tmp_path / "spend").limiter is not wires[0].limiter


@pytest.mark.parametrize("written", ["0.5", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
async def test_retry_after_is_read_as_seconds_or_as_a_date_and_else_a_jittered_pause_stands_in(written: str) -> None:
    clock = SteppedClock()
    fake = FakeOpenAI(Says("fine"), script=["429", ""])
    fake.troubles.retry_after = written
    with Running(fake) as url:
        wire = Wire(resolve_address(url, {}), limiter=Limiter(8, clock))
        async with wire:
            await ChatModel(wire, "m").reply(HELLO, SAMPLING)
    assert clock.time == {"0.5": 0.5, "soon": pytest.approx(0.125, abs=0.125)}.get(written, 0.0)
