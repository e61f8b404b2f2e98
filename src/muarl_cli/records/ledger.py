"""The spend ledger: no paid call leaves before its worst case is reserved under the cap, on disk.

One file of JSON lines is shared by all processes of a run under a file lock. A reservation that is never settled (the
process was killed, the reply was lost) keeps counting at its worst case, so the cap holds whatever dies. Invariant: at
any moment, settled cost plus open reservations is at most the cap.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muarl_cli.conversation.protocols import BudgetSpent
from muarl_cli.errors import ExitCode, MuarlError


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input_usd: float
    output_usd: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / 1e6


KNOWN_PRICES: Mapping[str, Price] = {
    # list prices as published by the vendor in 2025; prices given by the user win
    "gpt-4o": Price(2.5, 10.0),
    "gpt-4o-2024-11-20": Price(2.5, 10.0),
    "gpt-4o-2024-08-06": Price(2.5, 10.0),
    "gpt-4o-mini": Price(0.15, 0.6),
    "gpt-4o-mini-2024-07-18": Price(0.15, 0.6),
    "gpt-4.1": Price(2.0, 8.0),
    "gpt-4.1-2025-04-14": Price(2.0, 8.0),
    "gpt-4.1-mini": Price(0.4, 1.6),
    "gpt-4.1-mini-2025-04-14": Price(0.4, 1.6),
    "gpt-4.1-nano": Price(0.1, 0.4),
    "gpt-4.1-nano-2025-04-14": Price(0.1, 0.4),
}
PRICES_VARIABLE = "MUARL_PRICES"


def parse_prices(text: str) -> dict[str, Price]:
    """ "model=2.5/10,other=0.1/0.4" (US dollars per million input/output tokens) as prices by model name."""
    prices = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        model, _, pair = part.rpartition("=")
        try:
            into, out = (float(number) for number in pair.split("/"))
        except ValueError as error:
            raise MuarlError(
                f"{part!r} is no price",
                where=PRICES_VARIABLE,
                next_step="write model=INPUT/OUTPUT in US dollars per million tokens, for example gpt-4.1=2/8",
                code=ExitCode.CONFIG,
            ) from error
        if not model or not 0 <= into < float("inf") or not 0 <= out < float("inf"):
            raise MuarlError(f"{part!r} is no price", where=PRICES_VARIABLE, code=ExitCode.CONFIG)
        prices[model] = Price(into, out)
    return prices


def price_of(model: str, given: Mapping[str, Price]) -> Price:
    """The price of a model; raises `MuarlError` where nobody knows it, since an unknown price cannot be capped."""
    price = given.get(model) or KNOWN_PRICES.get(model)
    if price is None:
        raise MuarlError(
            f"the price of model {model!r} is not known, so its cost cannot be capped",
            next_step=f"export {PRICES_VARIABLE}='{model}=INPUT/OUTPUT' (US dollars per million tokens)",
            code=ExitCode.CONFIG,
        )
    return price


def read_spent(path: Path) -> tuple[float, float] | None:
    """US dollars settled and still reserved in a ledger file; None where there is none. Reads only and takes no lock,
    so that a run can be looked at while it spends; a torn last line is passed over."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    settled, open_ = 0.0, dict[str, float]()
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(line)
            operation, ticket, usd = row["op"], row["id"], float(row["usd"])
        except (ValueError, KeyError, TypeError):
            continue
        if operation == "reserve":
            open_[ticket] = usd
        elif open_.pop(ticket, None) is not None:
            settled += usd
    return settled, sum(open_.values())


class Ledger:
    """Reservations and settlements in one file, capped at `cap_usd`. Safe across threads and processes."""

    def __init__(self, path: Path, cap_usd: float) -> None:
        if not 0 <= cap_usd < float("inf"):
            raise MuarlError(
                f"a spend cap of {cap_usd} US dollars is no cap", next_step="give --max-usd", code=ExitCode.CONFIG
            )
        self.path, self.cap_usd = path, cap_usd
        self._thread_lock, self._disk_lock = threading.Lock(), threading.Lock()
        self._read = self._safe = 0
        """bytes of the file that are known, and that are known to be on disk"""
        self._open: dict[str, float] = {}
        self._settled = 0.0

    def reserve(self, usd: float, what: str = "") -> str:
        """Set aside `usd` for one call; on disk when it returns. Raises `BudgetSpent` where the cap would be
        crossed."""
        with self._locked() as descriptor:
            total = self._settled + sum(self._open.values())
            if total + usd > self.cap_usd + 1e-12:
                raise BudgetSpent(
                    f"the next call may cost {usd:.4f} US dollars and {total:.4f} of {self.cap_usd:g} are spent or "
                    "reserved; a higher --max-usd continues the run"
                )
            ticket = uuid.uuid4().hex
            self._append(descriptor, {"op": "reserve", "id": ticket, "usd": usd, "what": what})
            size = self._read
        self._on_disk(size)
        return ticket

    def settle(self, ticket: str, usd: float) -> None:
        """Replace a reservation by what the call really cost (0 for one that was refused). The machine may lose it in
        a power cut: then the worst case stays counted."""
        with self._locked() as descriptor:
            self._append(descriptor, {"op": "settle", "id": ticket, "usd": usd})

    def spent(self) -> tuple[float, float]:
        """US dollars settled, and US dollars in reservations that nobody settled yet."""
        with self._locked():
            return self._settled, sum(self._open.values())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, locked against all others, with everything in it read."""
        with self._thread_lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._catch_up(descriptor)
                yield descriptor
            finally:
                os.close(descriptor)  # releases the lock

    def _catch_up(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, size - self._read, self._read) if size > self._read else b""
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            self._take(line)
        self._read += whole
        if whole < len(data):  # a torn line of a killed process; its call never left, so it may go
            os.ftruncate(descriptor, self._read)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            operation, ticket, usd = row["op"], row["id"], float(row["usd"])
        except (ValueError, KeyError, TypeError) as error:
            raise MuarlError(
                "the spend ledger is damaged, so the cap cannot be kept",
                where=str(self.path),
                next_step="move the file away after noting what was spent",
                code=ExitCode.BAD_DATA,
            ) from error
        if operation == "reserve":
            self._open[ticket] = usd
        elif self._open.pop(ticket, None) is not None:
            self._settled += usd

    def _append(self, descriptor: int, row: Mapping[str, object]) -> None:
        line = (json.dumps(row, ensure_ascii=True) + "\n").encode()
        os.write(descriptor, line)
        self._read += len(line)
        self._take(line)

    def _on_disk(self, size: int) -> None:
        """Return when the first `size` bytes are on disk. Whoever waits at the same time shares the next flush, so that
        a slow disk bounds the wait of a call and not the number of calls."""
        with self._disk_lock:
            if self._safe >= size:
                return
            written = self._read
            descriptor = os.open(self.path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._safe = written
