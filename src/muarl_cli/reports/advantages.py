"""What each episode of an RL run was trained with, worked out again from its log and its settings.

Invariant: the numbers are those of `pipeline.rl_batches`, from the same rewards (outcome, rubric or gated), the same
method and, for `batch`, the spread of the whole step; where a task is needed and not known here, it says so instead of
a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.reports.figures import decimal
from muarl_cli.reports.run_view import RunView

UNKNOWN_TASK = "not known: the reward asks for the task, which is not known here"
INVALID = "none: the episode is invalid"


def advantages(run: RunView) -> dict[str, str]:
    """By episode id, as text: one number, one a turn where turns are credited, or why there is none. Empty for runs
    that did not train."""
    if run.stage != "rl-train":
        return {}
    steps: dict[int, list[Episode]] = {}
    for episode in run.own:
        steps.setdefault(episode.step, []).append(episode)
    found: dict[str, str] = {}
    for episodes in steps.values():
        found |= _of_step(episodes, run)
    return found


def _of_step(episodes: Sequence[Episode], run: RunView) -> dict[str, str]:
    from muarl_cli.scoring.rewards import Reward, reward_of, turn_rewards
    from muarl_cli.training.advantages import deviation, group_advantages, turn_advantages

    kind = Reward(str(run.settings.get("reward", Reward.OUTCOME)))
    method = str(run.settings.get("advantage", "mean_std"))
    by_turn = run.settings.get("credit", "episode") == "turn"
    if (kind is not Reward.OUTCOME or by_turn) and any(e.task_hash not in run.tasks for e in episodes):
        return {e.episode_id: UNKNOWN_TASK if e.valid else INVALID for e in episodes}
    rewards = {e.episode_id: e.reward if e.valid else None for e in episodes}
    if kind is not Reward.OUTCOME:
        rewards = {e.episode_id: reward_of(kind, e, *run.tasks[e.task_hash]) for e in episodes}
    spread = deviation([reward for reward in rewards.values() if reward is not None])
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group_id, []).append(episode)
    found: dict[str, str] = {}
    for group in groups.values():
        said = group_advantages([rewards[e.episode_id] for e in group], method, spread)
        worth: Sequence[Any] = said.advantages
        if by_turn and said.kept:
            worth = turn_advantages([turn_rewards(kind, e, *run.tasks[e.task_hash]) for e in group], method)
        for episode, value in zip(group, worth, strict=True):
            dropped = "" if said.kept else f"none: the group was dropped ({said.why})"
            found[episode.episode_id] = dropped or (_text(value) if episode.valid else INVALID)
    return found


def _text(value: float | Sequence[float]) -> str:
    if isinstance(value, Sequence):
        return "by turn: " + ", ".join(decimal(each, 3, signed=True) for each in value)
    return decimal(value, 3, signed=True)
