"""Steps of training on served engines, simulated: conversations of coming steps go on while one trains.

The rule is that of `lookahead.py`: the conversations of step s begin when the weights of s - 1 - bound updates are
served; update s begins when its conversations are over and update s - 1 is done; all steps under way share the places,
earlier ones first, and a replacement belongs to its step. Invariants: no step begins that could end up more than
`bound` updates old; with a bound of 0 each step begins when the one before is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from muarl_cli.pipeline.drawing import Served, Turn
from muarl_cli.pipeline.traffic import Caller, Server

Conversations = Sequence[Sequence[Turn]]


@dataclass(frozen=True)
class Course:
    """What all steps have in common."""

    rounds: Sequence[Conversations]
    """the conversations of a step, and then those that replace what taught nothing, one round after the other"""
    shared: float
    """tokens that each begins with"""
    latency: float
    """seconds of a user's turn"""
    in_flight: int
    update: float
    """seconds, and until the new weights are written out"""
    load: float
    """seconds in which engines stand still, taking them"""
    in_place: bool
    """whether turns under way go on with the new weights, so that what they had computed is worth nothing"""
    forgets: bool
    """whether engines then drop what they have cached; a step that is alone has nothing to lose"""


@dataclass(frozen=True)
class Trained:
    """One step as it went, in seconds since the beginning."""

    step: int
    begun: float
    served: int
    """updates whose weights were served when it began"""
    ready: float
    """when its conversations were over"""
    done: float
    """when its weights were served"""
    busy: float
    """until then, with a conversation going on"""
    worked: float
    """until then, by the engines, on average"""


def steps(course: Course, engine: Served, replicas: int, bound: int) -> Iterator[Trained]:
    """One step after the other, without end. Conversations are dealt to the replicas in turn."""
    yield from _Simulation(course, engine, replicas, bound).run()


class _Simulation:
    def __init__(self, course: Course, engine: Served, replicas: int, bound: int) -> None:
        caller, slots = Caller(engine), max(1, math.ceil(course.in_flight / replicas))
        self._servers = [Server(engine, caller, course.shared, course.latency, slots) for _ in range(replicas)]
        self._dues = [math.inf] * replicas
        self._course, self._bound = course, bound
        self._begun: dict[int, tuple[float, int]] = {}
        """of each step, when and with which weights"""
        self._round: dict[int, int] = {}
        self._step_of: list[int] = []
        """by conversation"""
        self._left: dict[int, int] = {}
        self._ready: dict[int, float] = {}
        self._busy = self._since = 0.0

    def run(self) -> Iterator[Trained]:
        self._serving(0, 0.0)
        trained, free = 0, 0.0
        while True:
            step = trained + 1
            while step not in self._ready:
                self._next()
            written = max(self._ready[step], free) + self._course.update
            self._until(written)
            for number, server in enumerate(self._servers):
                if self._course.forgets:
                    server.renew(written, self._course.load, self._course.in_place)
                    self._look(number)
            trained, free = step, written + self._course.load
            self._until(free)
            yield self._seen(trained, free)
            self._serving(trained, free)

    def _seen(self, step: int, at: float) -> Trained:
        for number, server in enumerate(self._servers):
            server.reach(at)
            self._look(number)
        begun, served = self._begun[step]
        busy = self._busy + (at - self._since if self._left else 0.0)
        worked = sum(server.worked for server in self._servers) / len(self._servers)
        return Trained(step, begun, served, self._ready.pop(step), at, busy, worked)

    def _serving(self, version: int, at: float) -> None:
        """Begin every step that these weights allow."""
        while len(self._begun) < version + 1 + self._bound:
            step = len(self._begun) + 1
            self._begun[step] = at, version
            self._open(step, 0, at)

    def _open(self, step: int, number: int, at: float) -> None:
        """The conversations of one round of a step."""
        while number < len(self._course.rounds) and not self._course.rounds[number]:
            number += 1
        if number == len(self._course.rounds):
            self._ready[step] = at
            return
        held = self._course.rounds[number]
        first = len(self._step_of)
        self._step_of += [step] * len(held)
        if not self._left:
            self._since = at
        self._round[step], self._left[step] = number, len(held)
        for place, server in enumerate(self._servers):
            own = range(place, len(held), len(self._servers))
            if own:
                server.add(at, step, {first + i: held[i] for i in own})
                self._look(place)

    def _until(self, at: float) -> None:
        while min(self._dues) <= at:
            self._next()

    def _next(self) -> None:
        """The next thing that happens at a server."""
        place = min(range(len(self._dues)), key=self._dues.__getitem__)
        self._servers[place].go_on()
        self._look(place)

    def _look(self, place: int) -> None:
        """What has ended at a server, and when it will be heard of next."""
        server = self._servers[place]
        self._dues[place] = server.due
        ended, server.ended = server.ended, []
        for at, number in ended:
            step = self._step_of[number]
            self._left[step] -= 1
            if not self._left[step]:
                del self._left[step]
                if not self._left:
                    self._busy += at - self._since
                self._open(step, self._round[step] + 1, at)
