"""What an RL step will take: seconds, memory, user-model cost and how long accelerators wait, before it is paid for.

The conversations of a step are simulated turn by turn (`drawing.py`, and `overlap.py` for served engines, where those
of the next steps go on meanwhile); the update takes the tokens of the groups that teach. Invariant: the same work and
rates give the same forecast. Rates come from a probe of this machine (`probe.py`, `server_probe.py`) or from an
accelerator's data sheet with the shares of it that well-kept engines reach (`sheet.py`).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from muarl_cli.pipeline.drawing import Local, Served, Turn
from muarl_cli.pipeline.overlap import Course, steps


@dataclass(frozen=True)
class Work:
    """The conversations of a step."""

    episodes: tuple[tuple[Turn, ...], ...]
    taught: float
    """share of their tokens that the update sees: those of groups that teach something"""
    shared: float
    """tokens that each begins with and an engine reads once for all; the update's rows hold them"""

    @property
    def tokens(self) -> int:
        """in the rows of all conversations"""
        own = sum(turn.fed + turn.drawn for episode in self.episodes for turn in episode)
        return round(own + self.shared * len(self.episodes))

    @property
    def user_turns(self) -> int:
        return sum(turn.of_user for episode in self.episodes for turn in episode)


@dataclass(frozen=True)
class Delivery:
    """What it takes to give engines new weights."""

    write: float = 0.0
    """seconds of the trainer: writing them out, and finding what engines have to compute with them"""
    load: float = 0.0
    """seconds in which engines stand still and take them"""
    in_place: bool = True
    """whether turns under way go on with them, after what they had computed was dropped; an adapter comes beside"""

    @property
    def seconds(self) -> float:
        return self.write + self.load


@dataclass(frozen=True)
class Rates:
    """What engines (all of one kind) and the trainer do."""

    engine: Local | Served
    train: float
    """tokens a second, forward and backward, all devices together"""
    replicas: int = 1
    delivery: Delivery | None = None
    """None where engine and trainer share the weights"""


def typical_work(episodes: int, max_turns: int, max_turn_tokens: int, prompt: int, seed: int) -> Work:
    """Conversations as the paper's policies hold them: some 22 counted turns of which six in ten are tool calls, turns
    of about 90 tokens, tool answers of 180, user turns of 40; half of the groups teach."""
    draw = random.Random(seed)
    found = []
    for _ in range(episodes):
        count = min(max_turns, max(4, round(draw.gauss(22, 6))))
        turns = []
        for number in range(count):
            of_user = number == 0 or draw.random() < 0.4
            news = round(draw.expovariate(1 / (40 if of_user else 180)))
            drawn = 1 + min(max_turn_tokens - 1, round(draw.expovariate(1 / 90)))
            turns.append(Turn(max(1, news), drawn, of_user))
        found.append(tuple(turns))
    return Work(tuple(found), 0.5, prompt)


@dataclass(frozen=True)
class Forecast:
    """A step in the long run."""

    rollout_seconds: float
    """in which the trainer waits for the step's conversations"""
    update_seconds: float
    """with the delivery of its weights"""
    idle_share: float
    """of the whole step, engines waiting for users and tools"""
    rollout_idle_share: float
    """of the whole step, without any conversation going on"""

    @property
    def step_seconds(self) -> float:
        return self.rollout_seconds + self.update_seconds

    @property
    def trainer_idle_share(self) -> float:
        return self.rollout_seconds / max(_LEAST, self.step_seconds)


_LEAST = 1e-12
"""seconds, where nothing takes any"""
_MANY = 1000
"""conversations after which a mean of steps is steady: they take turns in being short and long"""


def forecast(
    work: Work, rates: Rates, user_latency: float, in_flight: int, refills: int = 0, staleness: int = 0
) -> Forecast:
    """A step of many alike. Groups that teach nothing are replaced by others, at most `refills` times. Raises
    `ValueError` for staleness with an engine that cannot draw while the trainer works."""
    rounds = [work.episodes[: round(len(work.episodes) * (1 - work.taught) ** n)] for n in range(1 + refills)]
    taught = 1 - (1 - work.taught) ** (1 + refills)
    update = work.tokens * taught / rates.train
    if isinstance(rates.engine, Local):
        if staleness:
            raise ValueError("the engine in this process does not draw while the trainer works")
        return _in_turn(rounds, rates.engine, work.shared, user_latency, in_flight, update)
    delivery, reread = rates.delivery or Delivery(), rates.delivery is not None
    course = Course(
        rounds, work.shared, user_latency, in_flight, update + delivery.write, delivery.load, delivery.in_place, reread
    )
    return _overlapping(course, rates.engine, rates.replicas, staleness)


def _in_turn(
    rounds: Sequence[Sequence[Sequence[Turn]]],
    engine: Local,
    shared: float,
    latency: float,
    in_flight: int,
    update: float,
) -> Forecast:
    """Conversations of this process, then the update."""
    played = [engine.play(held, shared, latency, max(1, in_flight)) for held in rounds]
    rollout, worked = (sum(seconds) for seconds in zip(*played, strict=True))
    step = max(_LEAST, rollout + update)
    return Forecast(rollout, update, (rollout - worked) / step, update / step)


def _overlapping(course: Course, engine: Served, replicas: int, bound: int) -> Forecast:
    """The mean of some steps, after those in which the trainer had nothing to overlap with."""
    early, counted = 0, 1
    if bound:
        early, counted = 2 * (bound + 1), max(2 * (bound + 2), math.ceil(_MANY / len(course.rounds[0])))
    found = deque(islice(steps(course, engine, replicas, bound), early + counted), maxlen=counted + 1)
    busy, worked, begun = (found[0].busy, found[0].worked, found[0].done) if early else (0.0, 0.0, 0.0)
    seconds = (found[-1].done - begun) / counted
    update = course.update + course.load
    step = max(_LEAST, seconds)
    busy, worked = (found[-1].busy - busy) / counted, (found[-1].worked - worked) / counted
    return Forecast(max(0.0, seconds - update), update, max(0.0, busy - worked) / step, max(0.0, 1 - busy / step))


def user_cost(work: Work, price_in: float, price_out: float) -> float:
    """USD of a step: each user turn reads its instructions and the talk so far, and writes some 40 tokens. Prices are
    in USD per million tokens."""
    total = 0.0
    for episode in work.episodes:
        heard = 900.0
        for turn in episode:
            if turn.of_user:
                total += heard * price_in + 40 * price_out
                heard += 40 + turn.drawn
    return total / 1e6


def usual_context(work: Work) -> float:
    """Mean length of a conversation when it ends, in tokens."""
    return work.tokens / max(1, len(work.episodes))


def cached_tokens(work: Work, in_flight: int) -> float:
    """Tokens whose keys the engine in this process has at its peak: those of all open conversations, and a place for
    each of them in the tensor that batches work on, which is as long as the longest."""
    wave = work.episodes[:in_flight]
    lengths = [work.shared + sum(turn.fed + turn.drawn for turn in episode) for episode in wave]
    return sum(lengths) + len(lengths) * max(lengths)
