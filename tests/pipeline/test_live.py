"""The figures of a run: what the limits count, what the connections say, each address and ledger once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.engines.address import Address
from muarl_cli.engines.limiter import Limiter
from muarl_cli.engines.wire import Wire
from muarl_cli.pipeline import live
from muarl_cli.pipeline.live import Meter
from muarl_cli.records.ledger import Ledger


def test_turns_are_what_the_limits_count() -> None:
    meter = Meter(list)
    said, called = (Actor.AGENT, Kind.SAY), (Actor.AGENT, Kind.CALL)
    for actor, kind in [said, (Actor.USER, Kind.SAY), called, (Actor.WORLD, Kind.RESULT)]:
        meter.saw(Event(0, actor, kind, "x", None, ()))
    assert meter.figures() == {"turns": 2}, "and nothing that is not there"


def test_an_address_and_a_ledger_are_counted_once(tmp_path: Path) -> None:
    limiter, address = Limiter(8), Address("http://127.0.0.1:1/v1", "k", True)
    wires = [Wire(address, limiter=limiter, ledger=Ledger(tmp_path / "spend.json", 1.0)) for _ in range(2)]
    limiter.in_flight = 3
    ledger = wires[0].ledger
    assert ledger is not None
    ledger.settle(ledger.reserve(0.5), 0.25)
    figures = Meter(lambda: wires).figures()
    assert (figures["in flight"], figures["USD"]) == (3, 0.25)


def test_tokens_a_second_are_those_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])

    class Engine:
        stats: ClassVar[dict[str, Any]] = {"sampled_tokens": 0}

    meter = Meter(list, Engine)
    shown = []
    for second in range(1, 41):
        now[0] = float(second)
        Engine.stats["sampled_tokens"] += 100 if second <= 20 else 300
        shown.append(meter.figures()["tokens/s"])
    assert shown[0] == 100 and shown[19] == 100 and shown[-1] == 300
