"""What a forecast starts from: the conversations of an earlier run, and this machine's speed with its model.

The probe holds some of those conversations again, their turns as long as they were, and takes updates on them, with the
engine and the trainer of a real run on a copy of the weights; nothing is written. What a batch costs is fitted to what
it was made of (`drawing.made_of`), so that batches of other sizes and lengths can be forecast. Invariant: rates are
measured apart from each other and never read off the clock of the run that is to be forecast.
"""

from __future__ import annotations

import asyncio
import copy
import math
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.drawing import Local, Made, Served, Turn, made_of
from muarl_cli.pipeline.forecast import Delivery, Rates, Work
from muarl_cli.pipeline.parties import Talker
from muarl_cli.pipeline.policy import Policy
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.models import RlTrain
from muarl_cli.teams import computed

_WAVES = (1, 4, 16, 64)
"""conversations that the probe holds at once, one wave after the other"""
_UPDATES = 3


@dataclass(frozen=True)
class Found:
    """What the probe saw."""

    rates: Rates
    memory: int
    """bytes that a step's update adds to a process that has loaded the model, at their peak"""
    held: int
    """bytes of this process with the model, before"""


def episodes_of(run: Path) -> list[Episode]:
    """The token rows of the first step of a run; raises `MuarlError` where its log has none."""
    found = [episode for episode in iter_episodes(run, rows=True) if episode.valid and episode.rows]
    if not found:
        raise MuarlError(
            "the log holds no tokens to go by",
            where=str(run),
            next_step="name a run in which a policy played: of muarl rollout or rl-train",
            code=ExitCode.BAD_DATA,
        )
    first = min(episode.step for episode in found)
    return [episode for episode in found if episode.step == first]


def work_of(episodes: Sequence[Episode], count: int, group: int) -> Work:
    """Conversations like these, `count` of them in groups of `group`. What all begin with is fed once, so it is left
    out."""
    rows = [episode.rows[0] for episode in episodes]
    shared = {episode.scenario: episode.rows[0].ids for episode in episodes}
    for episode in episodes:
        known = shared[episode.scenario]
        same = next((i for i, (a, b) in enumerate(zip(known, episode.rows[0].ids, strict=False)) if a != b), len(known))
        shared[episode.scenario] = known[:same]
    turns = [_turns(row, len(shared[episode.scenario])) for episode, row in zip(episodes, rows, strict=True)]
    groups: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        groups[episode.group_id].append(episode.reward or 0.0)
    common = sum(len(shared[episode.scenario]) for episode in episodes) / len(episodes)
    taught = teaching_share(list(groups.values()), group)
    return Work(tuple(turns[i % len(turns)] for i in range(count)), taught, common)


def teaching_share(groups: Sequence[Sequence[float]], size: int) -> float:
    """The share of groups of `size` whose rewards are not all alike, from groups that may be smaller.

    Groups of that size are counted. Otherwise success rates of tasks are taken to be Beta distributed, with the mean
    and the likeness within groups that were seen (of a beta-binomial, by moments); then a group is all right with
    probability B(a + size, b) / B(a, b), and all wrong likewise. Rewards between 0 and 1 count as chances.
    """
    known = [group for group in groups if len(group) > 1]
    if not known or all(len(group) == size for group in known):
        return sum(max(group) - min(group) > 1e-6 for group in groups) / max(1, len(groups))
    everything = [reward for group in known for reward in group]
    mean = sum(everything) / len(everything)
    spread = mean * (1 - mean)
    if spread <= 0:
        return 0.0
    # covariance of two members of a group over the variance of one
    pairs = sum(len(group) * (len(group) - 1) for group in known)
    alike = sum(sum(r - mean for r in group) ** 2 - sum((r - mean) ** 2 for r in group) for group in known)
    likeness = min(0.999, max(0.001, alike / pairs / spread))
    a, b = mean * (1 / likeness - 1), (1 - mean) * (1 / likeness - 1)

    def all_alike(a: float, b: float) -> float:
        return math.exp(math.lgamma(a + size) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(a + b + size))

    return max(0.0, 1 - all_alike(a, b) - all_alike(b, a))


def _turns(row: TokenRow, shared: int) -> tuple[Turn, ...]:
    found, fed, drawn, of_user = [], -min(shared, len(row.ids)), 0, False
    for owner in (*row.owners, None):
        if owner == Owner.AGENT:
            drawn += 1
            continue
        if drawn:
            found.append(Turn(max(1, fed), drawn, of_user))
            fed, drawn, of_user = 0, 0, False
        fed += 1
        of_user = of_user or owner == Owner.USER
    return tuple(found)


def probe(policy: Policy, settings: RlTrain, work: Work, episodes: Sequence[Episode], say: Talker) -> Found:
    """Rates on these episodes, whose work is `work`: of this process with a copy of the policy's model, and of the
    servers where the settings name some."""
    from muarl_cli.pipeline.server_probe import delivery_of, probe_servers, servers_of
    from muarl_cli.pipeline.talking import seconds_a_turn
    from muarl_cli.pipeline.team import prepared

    agents, checking = servers_of(policy, settings, say) if settings.engines else (None, 0.0)
    own, dtype = prepared(copy.deepcopy(policy.model), settings), policy.dtype
    rows = [episode.rows[0] for episode in episodes]
    said = [[row.ids[begin:end] for begin, end in _places(row)] for row in rows]
    if agents is None:
        talk, asking = seconds_a_turn(policy, settings, episodes, said)
        costs, pause = asyncio.run(_drawing(own, dtype, rows, work))
        before = _resident()
        train, memory = _training(own, settings, rows, work, Beside(1))
        return Found(Rates(Local(costs, pause, talk, asking), train), memory, before)
    before, beside = _resident(), Beside(2 if settings.staleness else 1)

    def draw(clock: Callable[[], float]) -> Served:
        try:
            talk, asking = seconds_a_turn(policy, settings, episodes, said, clock)
            costs = probe_servers(agents, rows, work.shared, settings.in_flight, beside)
        finally:
            beside.enough("drawing")
        return replace(costs, talk=talk, asking=asking)

    def training() -> tuple[Delivery, float, int]:
        try:
            return delivery_of(policy, own, checking), *_training(own, settings, rows, work, beside)
        finally:
            beside.enough("training")

    if settings.staleness:  # as in the run: at once, in two threads of a process, maybe on one machine with the servers
        with ThreadPoolExecutor(1) as thread:
            trained = thread.submit(computed, training)
            engine = draw(time.perf_counter)
            delivery, train, memory = trained.result()
    else:
        engine = draw(time.thread_time)
        delivery, train, memory = training()
    return Found(Rates(engine, train, len(agents.wires), delivery), memory, before)


class Beside:
    """Measurements that go on at once, until each has seen enough."""

    def __init__(self, parties: int) -> None:
        self._parties, self._satisfied = parties, set[str]()

    def enough(self, who: str) -> bool:
        """`who` has seen enough; whether everybody has."""
        self._satisfied.add(who)
        return len(self._satisfied) >= self._parties


async def _drawing(model: Any, dtype: str, rows: Sequence[TokenRow], work: Work) -> tuple[tuple[float, ...], float]:
    """What batches cost, and the pause between two visits of one: waves of conversations are held again, whose turns
    end where they ended then."""
    from muarl_cli.engines.hf import HFEngine

    engine = HFEngine(model, dtype)
    seen: list[tuple[Made, float, float]] = []
    for wave in waves(len(rows), len(rows), 1):
        await engine.sync(None, "probe")
        seen += await held(engine, [rows[number % len(rows)] for number in wave], work.shared, made_of)
    engine.close()
    pauses = sum(wall - worked for _, worked, wall in seen[1:])
    costs = fitted([(made, worked) for made, worked, _ in seen[1:]])
    return costs, max(0.0, pauses / sum(made[0] for made, *_ in seen[1:]))


def waves(count: int, most: int, engines: int) -> Iterator[range]:
    """Numbers of the conversations that are held at once, one wave after the other: as many for each engine, `most`
    together where there are as many as `count`."""
    first = 0
    for number, size in enumerate((_WAVES[0], *_WAVES)):  # the first one allocates
        if not number or size * engines <= min(count, most):
            wave = range(first, first + min(size * engines, count))
            first = wave.stop
            yield wave


async def held(
    engine: Any, wave: Sequence[TokenRow], shared: float, made: Callable[[Sequence[tuple[float, int, int]]], Made]
) -> list[tuple[Made, float, float]]:
    """Turn after turn of all conversations of a wave: (what the work was made of, the engine's own seconds, all)."""
    from muarl_cli.engines.protocol import Sampling

    found = []
    turns = [list(_places(row)) for row in wave]
    known = [float(shared) if len(wave) > 1 else 0.0] * len(wave)  # a beginning is shared by two
    for place in range(max(map(len, turns))):
        batch, calls = [], []
        for number, (row, own) in enumerate(zip(wave, turns, strict=True)):
            if place < len(own):
                begin, end = own[place]
                # what it draws now is another text than then, so that the next turn has to read the old one
                batch.append((known[number], max(1, begin - int(known[number])), end - begin))
                known[number] = begin
                sampling = Sampling(1.0, 1.0, end - begin, (), number)
                calls.append(engine.generate(row.ids[:begin], sampling, f"{number:06d}"))
        begun, worked = time.perf_counter(), _worked(engine)
        await asyncio.gather(*calls)
        found.append((made(batch), _worked(engine) - worked, time.perf_counter() - begun))
    return found


def _worked(engine: Any) -> float:
    """Seconds that an engine in this process has worked; others do not tell."""
    return float(getattr(engine, "seconds", 0.0))


def _places(row: TokenRow) -> Iterator[tuple[int, int]]:
    """Where each turn of the agent begins and ends."""
    begin = 0
    for place, owner in enumerate((*row.owners, None)):
        if owner == Owner.AGENT:
            continue
        if place > begin:
            yield begin, place
        begin = place + 1


def fitted(seen: Sequence[tuple[Made, float]]) -> tuple[float, ...]:
    """Costs of nought or more, of each thing that batches are made of, with the least squares of relative errors."""
    import numpy

    seconds = numpy.array([taken for _, taken in seen])
    made = numpy.array([each for each, _ in seen]) / seconds[:, None]
    scale = numpy.maximum(numpy.linalg.norm(made, axis=0), 1e-30)
    made = made / scale
    products, wanted = made.T @ made, made.sum(axis=0)
    costs = numpy.zeros(len(wanted))
    for _ in range(5000):  # one coordinate after the other: few and scaled, so this is enough
        before = costs.copy()
        for place in range(len(costs)):
            costs[place] = max(0.0, costs[place] + wanted[place] - products[place] @ costs)
        if abs(costs - before).max() <= 1e-9 * costs.max():
            break
    return tuple(float(each) for each in costs / scale)


def _training(model: Any, settings: RlTrain, rows: Sequence[TokenRow], work: Work, beside: Beside) -> tuple[float, int]:
    """(tokens a second, bytes at the peak) of updates on rows that fill a micro-batch, or as many as a step has."""
    from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer, Sample

    own = {field.name: getattr(settings, field.name) for field in fields(GrpoSpec) if field.name != "total_steps"}
    own |= {"betas": tuple(settings.betas), "sequence_gate": tuple(settings.sequence_gate) or None, "kl_coef": 0.0}
    step = work.tokens * max(work.taught, 0.1)
    room = min(settings.micro_batch_tokens, step)
    samples: list[Sample] = []
    used, count = 0.0, 0
    for row in rows:
        if samples and used + len(row.ids) - work.shared > room:
            break
        samples.append(Sample(row, 0.5 if len(samples) % 2 else -0.5))
        used, count = used + len(row.ids) - (work.shared if count else 0), count + len(row.ids)
    sampled_is_old = not settings.engines and settings.top_p == 1  # as in the stage
    before = _resident()
    with _Peak() as peak:
        trainer = GrpoTrainer(model, GrpoSpec(total_steps=0, **own), None, sampled_is_old)
        taken: list[float] = []
        while len(taken) < 1 + _UPDATES or not beside.enough("training"):  # the first one allocates
            begun = time.perf_counter()
            trainer.update(samples)
            taken.append(time.perf_counter() - begun)
    return count / statistics.median(taken[1:]), round((peak.bytes - before) * max(1.0, room / used))


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class _Peak:
    """The most memory that this process has within the block, looked at every few milliseconds."""

    def __enter__(self) -> _Peak:
        self.bytes, self._over = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.bytes = max(self.bytes, _resident())
