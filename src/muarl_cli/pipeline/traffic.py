"""A served engine at work: conversations come to it at any time, draw together, and leave; simulated turn by turn.

All who draw get a token a step; whoever is new to it is read first, one after the other. Whoever waits for a user comes
back at a time of the clock. Invariants: the same arrivals and costs give the same seconds; what comes in the middle is
let in at the next step of decoding, and what happened before that is as it would have been without it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

from muarl_cli.pipeline.drawing import Served, Turn, wait_of


class Caller:
    """The process that holds the conversations: every turn passes through it, one at a time."""

    def __init__(self, costs: Served) -> None:
        self._talk, self._asking, self._free = costs.talk, costs.asking, 0.0

    def opened(self, at: float, turn: Turn) -> float:
        """When a conversation's first turn may be asked for."""
        return self._passed(at, self._asking if turn.of_user else 0.0)

    def answered(self, at: float, following: Turn | None) -> float:
        """When a turn that was drawn is dealt with, and the one that follows may be asked for."""
        return self._passed(at, self._talk + (self._asking if following and following.of_user else 0.0))

    def _passed(self, at: float, spent: float) -> float:
        if spent:
            self._free = at = max(self._free, at) + spent
        return at


class Server:
    """One engine. `slots` conversations are open at a time; of those that wait for a place, a lower rank goes first.
    `shared` is what all begin with; users take `latency` seconds."""

    def __init__(self, costs: Served, caller: Caller, shared: float, latency: float, slots: int) -> None:
        self._costs, self._caller = costs, caller
        self._shared, self._latency, self._slots = shared, latency, slots
        self.clock = self.worked = 0.0
        """seconds that have passed here, and those of them in which it worked"""
        self.ended: list[tuple[float, int]] = []
        """conversations that are over since somebody looked (when, which)"""
        self._step = 0
        self._turns: dict[int, Sequence[Turn]] = {}
        """of all who are here"""
        self._read: dict[int, int] = {}
        """tokens that an open conversation has, beside `shared`"""
        self._forgotten: set[int] = set()
        self._todo: list[tuple[int, int]] = []
        self._coming: list[tuple[float, int, int]] = []  # (when, which, turn)
        self._drawing: list[tuple[int, int, int]] = []  # (at which step it is done, which, turn)

    def add(self, at: float, rank: int, conversations: Mapping[int, Sequence[Turn]]) -> None:
        """Conversations come at `at`, which is not before anything that has happened here."""
        self.reach(at)
        self._turns |= conversations
        for number in conversations:
            heapq.heappush(self._todo, (rank, number))

    @property
    def due(self) -> float:
        """When the next thing happens here if nobody else comes; infinite where nothing will."""
        self._settle()
        if self._drawing:
            count, each = self._stretch()
            return self.clock + count * each
        return self._coming[0][0] if self._coming else math.inf

    def go_on(self) -> None:
        """Up to what is due."""
        self._settle()
        if self._drawing:
            self._draw(*self._stretch())
        elif self._coming:
            self.clock = self._coming[0][0]  # everybody waits

    def reach(self, at: float) -> None:
        """Up to `at`, in whole steps of decoding."""
        self._settle()
        while self.clock < at:
            if self._drawing:
                count, each = self._stretch()
                self._draw(min(count, math.ceil((at - self.clock) / each)), each)
            else:
                self.clock = min(at, self._coming[0][0]) if self._coming else at
            self._settle()

    def renew(self, at: float, seconds: float, in_place: bool) -> None:
        """It gets new weights at `at`, stands still for `seconds`, and nothing that was computed with the old ones is
        used again. Turns under way are read again at once where the weights change `in_place`; otherwise they end with
        the old ones."""
        self.reach(at)
        self.clock += seconds
        here = {number for _, number, _ in self._drawing}
        if in_place:
            left = sum(end - self._step for end, *_ in self._drawing)
            self._work((sum(self._read[n] for n in here) - left) / self._costs.prefill)
        self._forgotten |= set(self._read) - (here if in_place else set())

    def _settle(self) -> None:
        """Open conversations where there is room, and read for those who have come."""
        while self._todo and len(self._read) < self._slots:
            _, number = heapq.heappop(self._todo)
            if not (turns := self._turns[number]):
                self._leave(number)
                continue
            self._read[number] = 0
            begun = self._caller.opened(self.clock, turns[0]) + wait_of(turns[0], self._latency)
            heapq.heappush(self._coming, (begun, number, 0))
        while self._coming and self._coming[0][0] <= self.clock:
            _, number, place = heapq.heappop(self._coming)
            turn, before = self._turns[number][place], self._read[number]
            new = turn.fed + (before if number in self._forgotten else 0)
            known = self._shared + turn.fed + before - new
            self._forgotten.discard(number)
            self._work(self._costs.turn + new / self._costs.prefill + known * self._costs.again)
            self._read[number] = before + turn.fed + turn.drawn
            heapq.heappush(self._drawing, (self._step + turn.drawn, number, place))

    def _stretch(self) -> tuple[int, float]:
        """Steps until somebody is done or somebody comes, and seconds of each."""
        each = self._costs.decode_base + self._costs.decode_row * len(self._drawing)
        count = self._drawing[0][0] - self._step
        if self._coming:
            count = min(count, max(1, math.ceil((self._coming[0][0] - self.clock) / each)))
        return count, each

    def _draw(self, count: int, each: float) -> None:
        self._work(count * each)
        self._step += count
        while self._drawing and self._drawing[0][0] <= self._step:
            _, number, place = heapq.heappop(self._drawing)
            turns = self._turns[number]
            following = turns[place + 1] if place + 1 < len(turns) else None
            at = self._caller.answered(self.clock, following)
            if following:
                heapq.heappush(self._coming, (at + wait_of(following, self._latency), number, place + 1))
            else:
                del self._read[number]
                self._forgotten.discard(number)
                self._leave(number)

    def _leave(self, number: int) -> None:
        del self._turns[number]
        self.ended.append((self.clock, number))

    def _work(self, seconds: float) -> None:
        self.clock, self.worked = self.clock + seconds, self.worked + seconds
