from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.protocols import BudgetSpent
from muarl_cli.errors import MuarlError
from muarl_cli.records.ledger import Ledger, Price, parse_prices, price_of

SPENDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from muarl_cli.conversation.protocols import BudgetSpent
from muarl_cli.records.ledger import Ledger
ledger, n = Ledger(Path(sys.argv[1]), 1.0), 0
try:
    while True:
        ticket = ledger.reserve(0.01)
        n += 1
        if n % 2:
            ledger.settle(ticket, 0.01)
except BudgetSpent:
    print(n)
"""

KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from muarl_cli.records.ledger import Ledger
Ledger(Path(sys.argv[1]), 1.0).reserve(0.75)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_share_one_cap(tmp_path: Path) -> None:
    path = tmp_path / "spend.jsonl"
    command = [sys.executable, "-c", SPENDER, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(counts) == 100
    assert sum(Ledger(path, 1.0).spent()) == pytest.approx(1.0)


def test_a_reservation_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "spend.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(BudgetSpent):
        Ledger(path, 1.0).reserve(0.5)
    assert Ledger(path, 1.0).spent() == (0.0, 0.75)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.none() | st.floats(0, 1)), max_size=30))
def test_settled_and_reserved_never_exceed_the_cap_while_costs_stay_in_their_bound(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[float, float | None]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "spend.jsonl"
    ledger = Ledger(path, 1.0)
    for worst, share in calls:
        try:
            ticket = ledger.reserve(worst)
        except BudgetSpent:
            assert sum(ledger.spent()) + worst > 1.0
            continue
        if share is not None:
            ledger.settle(ticket, worst * share)
        assert sum(ledger.spent()) <= 1.0 + 1e-9
    assert Ledger(path, 1.0).spent() == pytest.approx(ledger.spent())


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "spend.jsonl"
    ledger = Ledger(path, 1.0)
    ledger.settle(ledger.reserve(0.25), 0.25)
    with path.open("ab") as file:
        file.write(b'{"op": "reserve", "id"')
    again = Ledger(path, 1.0)
    again.reserve(0.1)
    assert [json.loads(line)["op"] for line in path.read_text().splitlines()] == ["reserve", "settle", "reserve"]
    assert ledger.spent() == (0.25, 0.1)
    path.write_text("garbage\n")
    with pytest.raises(MuarlError):
        Ledger(path, 1.0).spent()


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Ledger(tmp_path / "run" / "spend.jsonl", 1.0).reserve(0.1)
    assert os.stat(tmp_path / "run" / "spend.jsonl").st_mode & 0o077 == 0


def test_given_prices_win_and_unknown_ones_are_refused() -> None:
    given_prices = parse_prices("my/model=1/2, gpt-4.1=3/4")
    assert given_prices == {"my/model": Price(1, 2), "gpt-4.1": Price(3, 4)}
    assert price_of("gpt-4.1", given_prices) == Price(3, 4)
    assert price_of("gpt-4.1", {}) == Price(2, 8)
    for text in ("gpt", "x=1", "x=a/b", "x=-1/2", "x=inf/1", "=1/2"):
        with pytest.raises(MuarlError):
            parse_prices(text)
    with pytest.raises(MuarlError, match="not known"):
        price_of("my/other", given_prices)


def test_calls_that_wait_for_the_disk_at_the_same_time_share_a_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ticket is handed out before it is on disk, and six that wait take two flushes of a slow disk, not six."""
    path, slow, flushed = tmp_path / "spend.json", threading.Event(), list[int]()

    def flush(descriptor: int) -> None:
        slow.wait(30)
        flushed.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", flush)
    ledger = Ledger(path, 10.0)
    with ThreadPoolExecutor(6) as pool:
        tickets = [pool.submit(ledger.reserve, 0.5) for _ in range(6)]
        while not path.exists() or path.read_bytes().count(b"\n") < 6:
            time.sleep(0.001)
        assert not any(ticket.done() for ticket in tickets)
        slow.set()
        assert len({ticket.result(timeout=30) for ticket in tickets}) == 6
    assert len(flushed) <= 2 and flushed[-1] == path.stat().st_size


def test_a_settlement_that_a_power_cut_loses_leaves_the_worst_case_counted(tmp_path: Path) -> None:
    path = tmp_path / "spend.json"
    ledger = Ledger(path, 10.0)
    ticket = ledger.reserve(4.0)
    kept = path.stat().st_size
    ledger.settle(ticket, 0.25)
    os.truncate(path, kept)
    assert Ledger(path, 10.0).spent() == (0.0, 4.0)
