"""What engines take for conversations: the costs of a served one, and the one in this process, simulated turn by turn.

Invariant: the same conversations and costs give the same seconds. Each conversation feeds what is new to it, draws its
tokens together with all others that draw at that moment, waits for its user or its tool, and goes on.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

GO_TOGETHER, PATIENCE = 0.25, 4
"""as in engines/generation.py, which is too heavy to be imported for a forecast; a test holds them together"""


@dataclass(frozen=True)
class Turn:
    """One turn of the agent: tokens it reads first, tokens it draws, and whom it waits for before it could begin."""

    fed: int
    drawn: int
    of_user: bool
    """whether it answers the user (and so waited for it), not a tool"""


@dataclass(frozen=True)
class Served:
    """What engines cost that take in whoever comes at any step, as served ones do; `traffic.Server` is one at work."""

    decode_base: float
    """seconds of a decoding step of any batch"""
    decode_row: float
    """seconds more for each conversation in it"""
    prefill: float
    """tokens a second"""
    again: float = 0.0
    """seconds for each token of a turn's prompt that was read before: nearly nothing where a prefix cache holds it"""
    turn: float = 0.0
    """seconds more for each turn: taking the request, sending the reply"""
    talk: float = 0.0
    """seconds of the process that holds the conversations, for each turn: one after the other, while engines go on"""
    asking: float = 0.0
    """likewise, seconds more for each turn of a served user"""


@dataclass(frozen=True)
class Local:
    """The engine in this process: who waits joins the running batch when turns are over, and conversations are held in
    waves, each to its last one."""

    costs: tuple[float, ...]
    """seconds for each of `made_of`"""
    pause: float = 0.0
    """seconds between two visits of its batch, in which the event loop looks who else wants to join"""
    talk: float = 0.0
    """seconds of everything else for each turn: reading it, tools, a scripted user; the engine waits meanwhile"""
    asking: float = 0.0
    """likewise, seconds more for each turn of a served user: writing the request, reading the reply"""

    def play(
        self, episodes: Sequence[Sequence[Turn]], shared: float, latency: float, slots: int
    ) -> tuple[float, float]:
        """(seconds, seconds in which the engine worked); `shared` as in `Work`, `slots` conversations at a time."""
        clock = worked = 0.0
        for first in range(0, len(episodes), slots):
            wave = episodes[first : first + slots]
            known = [shared] * len(wave)
            clock += self.asking * sum(turns[0].of_user for turns in wave if turns)
            coming = [(clock + wait_of(turns[0], latency), number, 0) for number, turns in enumerate(wave) if turns]
            heapq.heapify(coming)
            batch = _Batch()
            while coming or batch.rows:
                if not batch.rows:
                    clock = max(clock, coming[0][0])
                while coming and coming[0][0] <= clock:
                    _, number, place = heapq.heappop(coming)
                    turn = wave[number][place]
                    batch.join(number, place, known[number], turn)
                    known[number] += turn.fed + turn.drawn
                spent = self._seconds(batch.feed())
                steps = math.inf
                if coming:  # who comes back in the middle is let in at the next step
                    each = self._seconds(batch.step(1))
                    steps = math.ceil((coming[0][0] - clock - spent) / each) if each else math.inf
                made, left = batch.draw(max(1, steps))
                spent += self._seconds(made)
                worked += spent
                going_on = [(number, place + 1) for number, place in left if place + 1 < len(wave[number])]
                asked = sum(wave[number][place].of_user for number, place in going_on)
                clock += spent + self.pause + self.talk * len(left) + self.asking * asked
                for number, place in going_on:
                    heapq.heappush(coming, (clock + wait_of(wave[number][place], latency), number, place))
        return clock, worked

    def _seconds(self, made: Sequence[float]) -> float:
        return sum(cost * count for cost, count in zip(self.costs, made, strict=True))


Made = tuple[float, ...]
"""What work of the engine in this process is made of: visits of its batch, rows that join, tokens known of them (they
are copied in and out), tokens fed with the padding to the longest, decoding steps, rows in all of them, and the tokens
that these look back on, all as far as the longest does"""
_NOTHING: Made = (0.0,) * 7


def made_of(rows: Sequence[tuple[float, int, int]]) -> Made:
    """Of turns that begin together and are drawn until all are over: (tokens known, tokens fed, tokens drawn) each."""
    batch = _Batch()
    for number, (known, fed, drawn) in enumerate(rows):
        batch.join(number, 0, known, Turn(fed, drawn, False))
    total = batch.feed()
    while batch.rows:
        made, _ = batch.draw(math.inf)
        total = _sum(total, made)
    return total


@dataclass
class _Row:
    number: int
    place: int
    length: float
    left: int
    """tokens that it will draw yet"""


class _Batch:
    """The running batch of `engines/generation.py`, counted."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self._joining: list[tuple[float, int]] = []

    def join(self, number: int, place: int, known: float, turn: Turn) -> None:
        self._joining.append((known, turn.fed))
        self.rows.append(_Row(number, place, known + turn.fed, turn.drawn))

    def feed(self) -> Made:
        """What it takes to feed those who have joined."""
        new, self._joining = self._joining, []
        if not new:
            return _NOTHING
        padded = len(new) * max(fed for _, fed in new)
        return (0.0, float(len(new)), sum(known for known, _ in new), float(padded), 0.0, 0.0, 0.0)

    def step(self, count: float) -> Made:
        """What so many steps of all rows take, and the visit that they are."""
        width = max(row.length for row in self.rows) + count / 2
        drawn = count * len(self.rows)
        return (1.0, 0.0, 0.0, 0.0, count, drawn, drawn * width)

    def draw(self, most: float) -> tuple[Made, list[tuple[int, int]]]:
        """Steps until rows leave, `most` of them at most; what they take, and who leaves (number, place)."""
        ends = sorted(row.left for row in self.rows)
        enough = ends[math.ceil(GO_TOGETHER * len(ends)) - 1]
        count = min(enough, ends[0] + PATIENCE - 1, most)
        made = self.step(count)
        left = [(row.number, row.place) for row in self.rows if row.left <= count]
        for row in self.rows:
            row.length, row.left = row.length + count, row.left - int(count)
        self.rows = [row for row in self.rows if row.left > 0]
        return made, left


def _sum(one: Made, other: Made) -> Made:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def wait_of(turn: Turn, latency: float) -> float:
    """Seconds until it may begin: those of its user."""
    return latency if turn.of_user else 0.0
