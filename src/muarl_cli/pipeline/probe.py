"""What a forecast starts from: the conversations of an earlier run, and this machine's speed with its model.

The probe draws and trains for a few seconds with the engine and the trainer of a real run, on a copy of the weights;
nothing is written. Invariant: rates are measured apart from each other and never read off the clock of the run that is
to be forecast.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.forecast import Rates, Turn, Work
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.models import RlTrain

_FEW, _MANY, _DRAWN = 4, 64, 24
_ROWS = 16
"""rows that the trainer is probed with: two groups"""


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


def work_of(episodes: Sequence[Episode], count: int) -> Work:
    """Conversations like these, `count` of them. What all begin with is fed once, so it is left out."""
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
    teaching = sum(max(g) - min(g) > 1e-6 for g in groups.values()) / len(groups)
    common = sum(len(shared[episode.scenario]) for episode in episodes) / len(episodes)
    return Work(tuple(turns[i % len(turns)] for i in range(count)), teaching, common)


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


def probe(model: Any, dtype: str, settings: RlTrain, episodes: Sequence[Episode]) -> Rates:
    """Rates of this process with a copy of `model`, on the rows of these episodes."""
    own = copy.deepcopy(model)
    rows = [row for episode in episodes for row in episode.rows]
    length = max(8, sorted(len(row.ids) for row in rows)[len(rows) // 2] // 2)
    prompts = [row.ids[:length] for row in (rows * (1 + _MANY // len(rows)))[:_MANY]]
    base, row, prefill = asyncio.run(_drawing(own, dtype, prompts))
    return Rates(base, row, prefill, _training(own, settings, rows), gathered=True)


async def _drawing(model: Any, dtype: str, prompts: Sequence[tuple[int, ...]]) -> tuple[float, float, float]:
    """(decode_base, decode_row, prefill), from batches of few and many rows, of one token and of several."""
    from muarl_cli.engines.hf import HFEngine
    from muarl_cli.engines.protocol import Sampling

    engine = HFEngine(model, dtype)
    names = iter(range(10**9))

    async def seconds(rows: int, drawn: int) -> float:
        each = []
        for _ in range(3):
            await engine.sync(None, "probe")
            tags = [f"{next(names):06d}" for _ in range(rows)]
            begun = time.perf_counter()
            calls = zip(prompts, tags, strict=False)
            await asyncio.gather(
                *(engine.generate(ids, Sampling(1.0, 1.0, drawn, (), i), tag) for i, (ids, tag) in enumerate(calls))
            )
            each.append(time.perf_counter() - begun)
        return sorted(each)[1]

    await seconds(_FEW, 2)  # the first batch allocates
    first = {rows: await seconds(rows, 1) for rows in (_FEW, _MANY)}
    step = {rows: (await seconds(rows, 1 + _DRAWN) - first[rows]) / _DRAWN for rows in (_FEW, _MANY)}
    engine.close()
    row = max(0.0, (step[_MANY] - step[_FEW]) / (_MANY - _FEW))
    fed = sum(len(ids) for ids in prompts[_FEW:_MANY])
    prefill = fed / max(1e-9, first[_MANY] - first[_FEW])
    return max(1e-9, step[_FEW] - _FEW * row), row, prefill


def _training(model: Any, settings: RlTrain, rows: Sequence[TokenRow]) -> float:
    """Tokens a second of an update."""
    from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer, Sample

    own = {field.name: getattr(settings, field.name) for field in fields(GrpoSpec) if field.name != "total_steps"}
    own |= {"betas": tuple(settings.betas), "sequence_gate": tuple(settings.sequence_gate) or None, "kl_coef": 0.0}
    trainer = GrpoTrainer(model, GrpoSpec(total_steps=0, **own), None)
    samples = [Sample(row, 0.5 if i % 2 else -0.5) for i, row in enumerate(rows[:_ROWS])]
    trainer.update(samples)  # the first one allocates
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        trainer.update(samples)
        taken.append(time.perf_counter() - begun)
    return sum(len(sample.row.ids) for sample in samples) / sorted(taken)[1]
