"""Faults that strike user calls, in RL: left out, or scored 0, against a run without any. Prints one JSON document.

    python docs/measure/faults_in_rl.py [--start runs/demo/sft] [--steps 14] [--seeds 2] [--rate 0.25]

The desk of the demo, tasks with one write. In most of them the user means what they say, and a write without asking is
as good as one that was proposed first and a user call shorter; in the others (`CHANGING`) the user changes their mind
when asked, and who does not ask fails. So the better policy is the one whose conversations are longer. Every user call
from the fourth on is lost with a fixed probability, as with a user model whose context runs full: who asks is struck
more often. Three arms train with the tiny profile from the same checkpoint and seed: `clean` without faults; `excluded`
with them, as muarl does it; `zero` with them and each invalid episode counted as a valid one of reward 0, which only
this program does, to `rl_batches.reward_of`. No slot is played again. All are then evaluated on other tasks of the same
mixture without faults; differences are paired by task, over the episodes of all seeds.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muarl_cli.cli.console import Talk
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import UserFault
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline import parties, rl_batches, rl_train, rollout
from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.metrics import pool
from muarl_cli.scoring.summary import ScoreSummary, compare, summarise
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import RlTrain, Rollout
from muarl_cli.settings.resolve import resolve
from muarl_cli.worlds.catalog import load_tasks

ARMS = ("clean", "excluded", "zero")
RESAMPLES = 10_000
CHANGING = 0.2
"""share of the tasks in which the user changes their mind"""
SHARES = {False: 1 - CHANGING, True: CHANGING}
TRAIN, HELD = 200, 160
"""tasks to learn from, and others to be judged by"""
SAFE_CALLS = 3
"""of the user, in each conversation"""


class Frail:
    """A user that is lost at any turn after the first `SAFE_CALLS` with the probability `rate`, drawn from the
    episode's seed."""

    def __init__(self, inner: Any, rate: float, seed: int) -> None:
        self._inner, self._rate = inner, rate
        self._draw = random.Random(derive_seed(seed, "planted-fault"))
        self._calls = 0

    async def respond(self, news: Sequence[Any]) -> Any:
        self._calls += 1
        if self._calls > SAFE_CALLS and self._draw.random() < self._rate:
            raise UserFault("planted")
        return await self._inner.respond(news)

    def close(self) -> None:
        self._inner.close()


class FrailUsers:
    def __init__(self, inner: Any, rate: float) -> None:
        self._inner, self._rate = inner, rate

    @property
    def info(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._inner.info
        return found

    def open(self, stage: Any, task: Any) -> Frail:
        return Frail(self._inner.open(stage, task), self._rate, stage.seed)


@contextmanager
def _arm(name: str, rate: float) -> Iterator[None]:
    """What differs between the arms, put in place and taken away."""
    scripted, judged = parties.scripted_user, rl_batches.reward_of

    def frail(scenario: Any, injectors: Any = None) -> Any:
        return FrailUsers(scripted(scenario, injectors), rate)

    def zero(kind: Any, episode: Any, scenario: Any, task: Any) -> float | None:
        return judged(kind, episode, scenario, task) if episode.valid else 0.0

    try:
        if name != "clean":
            parties.scripted_user = frail
        if name == "zero":
            rl_batches.reward_of = zero  # type: ignore[assignment]
        yield
    finally:
        parties.scripted_user, rl_batches.reward_of = scripted, judged


def mixture(train: int, held: int) -> tuple[list[str], list[str]]:
    """References of `train` tasks and of `held` others, all with one write, `CHANGING` of them with a change of mind.

    Both are of the train split, whose tasks are many: what is held back is neither trained on nor chosen by.
    """
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for _, task in load_tasks(["builtin:retail:train"]):
        if len(task.gold_writes) == 1:
            changes = any(goal.get("change") for goal in task.brief["goals"])
            kinds[changes].append(f"builtin:retail:train:{task.id}")
    first, last = ({kind: round(count * share) for kind, share in SHARES.items()} for count in (train, held))
    return (
        [name for kind, names in kinds.items() for name in names[: first[kind]]],
        [name for kind, names in kinds.items() for name in names[-last[kind] :]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What faults do to a run, left out or scored.")
    parser.add_argument("--start", default="runs/demo/sft")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.25, help="probability of a fault, each late user call")
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--only", default="", help="ARM:SEED, to hold one run and print nothing")
    options = parser.parse_args()
    runs = [(arm, seed) for seed in range(1, options.seeds + 1) for arm in ARMS]
    if options.only:
        arm, _, seed = options.only.partition(":")
        runs = [(arm, int(seed))]
    shares: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for arm, seed in runs:
        folder = options.out / f"{arm}-{seed}"
        shares[arm].append(_train(arm, seed, options, folder / "rl"))
        _play(folder / "rl", folder / "held")
    if options.only:
        return
    every = [f"{seed}" for seed in range(1, options.seeds + 1)]
    scores = {arm: _score(options.out, arm, every) for arm in ARMS}
    by_seed = {arm: [round(_score(options.out, arm, [seed]).headline()["mean"], 3) for seed in every] for arm in ARMS}
    pairs = {
        f"{arm}_minus_clean": compare(scores["clean"], scores[arm], resamples=RESAMPLES, seed=1).difference.to_json()
        for arm in ARMS[1:]
    }
    struck = shares["excluded"] + shares["zero"]
    print(
        json.dumps(
            {
                "steps": options.steps,
                "seeds": options.seeds,
                "rewards": {arm: score.headline() for arm, score in scores.items()},
                "by_seed": by_seed,
                "unasked": {arm: _unasked(options.out, arm, every) for arm in ARMS},
                "lower_in": sum(z < x for z, x in zip(by_seed["zero"], by_seed["excluded"], strict=True)),
                "differences": pairs,
                "fault_share": sum(struck) / len(struck),
                "fault_shares": {arm: [round(share, 3) for share in shares[arm]] for arm in ARMS[1:]},
            }
        )
    )


def _train(arm: str, seed: int, options: argparse.Namespace, out: Path) -> float:
    """Train one arm; the share of its conversations that ended in a fault."""
    overrides = [f"model={options.start}", f"steps={options.steps}", "retry_faults=0", "save_every=4", f"seed={seed}"]
    overrides += [f"tasks={','.join(mixture(TRAIN, HELD)[0])}", "prompts_per_step=12", "limits.max_turns=10"]
    settings = resolve(Stage.RL_TRAIN, profile_name="tiny", overrides=overrides, environ={}).settings
    assert isinstance(settings, RlTrain)
    with _arm(arm, options.rate):
        rl_train.run(settings, out, Talk(json=True))
    episodes = list(iter_episodes(out))
    return sum(not episode.valid for episode in episodes) / len(episodes)


def _play(model: Path, out: Path) -> None:
    overrides = [
        f"model={model}",
        "group=4",
        "limits.max_turns=10",
        f"tasks={','.join(mixture(TRAIN, HELD)[1])}",
        "max_tasks=0",
    ]
    settings = resolve(Stage.ROLLOUT, profile_name="tiny", overrides=overrides, environ={}).settings
    assert isinstance(settings, Rollout)
    rollout.run(settings, out, Talk(json=True))


def _held(out: Path, arm: str, seeds: Sequence[str]) -> Iterator[Episode]:
    """The conversations on held tasks of these seeds' runs."""
    for seed in seeds:
        yield from iter_episodes(out / f"{arm}-{seed}" / "held")


def _score(out: Path, arm: str, seeds: Sequence[str]) -> ScoreSummary:
    return summarise(_held(out, arm, seeds), resamples=RESAMPLES, seed=1)


def _unasked(out: Path, arm: str, seeds: Sequence[str]) -> float:
    """The share of writing conversations with a write that the user did not agree to."""
    return float(pool(e.events for e in _held(out, arm, seeds)).to_json()["unconfirmed_episode_share"])


if __name__ == "__main__":
    main()
