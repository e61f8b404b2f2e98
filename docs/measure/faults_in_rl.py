"""Faults that strike each user call, in RL: left out, or scored 0, against a run without any. Prints one JSON document.

    python docs/measure/faults_in_rl.py [--sft runs/demo/sft] [--steps 12] [--rate 0.045] [--out runs/faults]

Every turn of the scripted user may fail with a fixed probability, so longer conversations die more often (the default
rate ends about one in five). Three arms train with the tiny profile from the same checkpoint: `clean` without faults;
`excluded` with them, as muarl does it; `zero` with them and each invalid episode counted as a valid one of reward 0,
which only this program does, to `rl_batches.reward_of`. No slot is played again. All are then evaluated on the same dev
tasks without faults; differences are paired by task.
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
from muarl_cli.conversation.protocols import UserFault
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline import parties, rl_batches, rl_train, rollout
from muarl_cli.records.log import iter_episodes
from muarl_cli.scoring.summary import ScoreSummary, compare, summarise
from muarl_cli.settings.models import RlTrain, Rollout, Stage
from muarl_cli.settings.resolve import resolve

ARMS = ("clean", "excluded", "zero")
RESAMPLES = 10_000


class Frail:
    """A user that is lost at any turn with the probability `rate`, drawn from the episode's seed."""

    def __init__(self, inner: Any, rate: float, seed: int) -> None:
        self._inner, self._rate = inner, rate
        self._draw = random.Random(derive_seed(seed, "planted-fault"))

    async def respond(self, news: Sequence[Any]) -> Any:
        if self._draw.random() < self._rate:
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


def main() -> None:
    parser = argparse.ArgumentParser(description="What faults do to a run, left out or scored.")
    parser.add_argument("--sft", default="runs/demo/sft")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rate", type=float, default=0.045, help="probability of a fault, each user turn")
    parser.add_argument("--tasks", type=int, default=48, help="dev tasks")
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    options = parser.parse_args()
    scores = {}
    shares = {}
    for arm in ARMS:
        folder = options.out / f"{arm}-{options.steps}-{options.rate}"
        shares[arm] = _train(arm, options, folder / "rl")
        scores[arm] = _score(folder / "rl", folder / "dev", options.tasks)
    pairs = {
        f"{arm}_minus_clean": compare(scores["clean"], scores[arm], resamples=RESAMPLES, seed=1).difference.to_json()
        for arm in ARMS[1:]
    }
    rewards = {arm: score.headline() for arm, score in scores.items()}
    share = (shares["excluded"] + shares["zero"]) / 2
    print(json.dumps({"steps": options.steps, "rewards": rewards, "differences": pairs, "fault_share": share}))


def _train(arm: str, options: argparse.Namespace, out: Path) -> float:
    """Train one arm; the share of its conversations that ended in a fault."""
    overrides = [f"model={options.sft}", f"steps={options.steps}", "retry_faults=0", "save_every=0"]
    settings = resolve(Stage.RL_TRAIN, profile_name="tiny", overrides=overrides, environ={}).settings
    assert isinstance(settings, RlTrain)
    with _arm(arm, options.rate):
        rl_train.run(settings, out, Talk(json=True))
    episodes = list(iter_episodes(out))
    return sum(not episode.valid for episode in episodes) / len(episodes)


def _score(model: Path, out: Path, tasks: int) -> ScoreSummary:
    overrides = [f"model={model}", f"max_tasks={tasks}", "group=8", "tasks=builtin:retail:dev"]
    settings = resolve(Stage.ROLLOUT, profile_name="tiny", overrides=overrides, environ={}).settings
    assert isinstance(settings, Rollout)
    rollout.run(settings, out, Talk(json=True))
    return summarise(iter_episodes(out), resamples=RESAMPLES, seed=1)


if __name__ == "__main__":
    main()
