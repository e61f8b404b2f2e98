"""What a step of RL learns from: the order of tasks, refills, advantages over valid siblings only."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import MuarlError
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.rl_batches import InTurn, TaskStream, collect, samples_of, step_metrics
from muarl_cli.pipeline.rl_train import total_steps

CHOICES = {"reward": "outcome", "credit": "episode"}
SCENARIO = SimpleNamespace(source="builtin", name="toy")


def _tasks(count: int) -> list[Any]:
    return [
        (SCENARIO, SimpleNamespace(source="builtin", scenario="toy", id=str(i), task_hash=f"h{i}", split="train"))
        for i in range(count)
    ]


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 9), st.integers(1, 5))
def test_the_order_of_tasks_can_be_taken_up_anywhere_and_each_epoch_holds_every_task_once(
    count: int, cut: int, seed: int, draw: int
) -> None:
    tasks = _tasks(count)
    whole = TaskStream(tasks, seed).next(cut + 3 * count)
    assert TaskStream(tasks, seed, cut).next(3 * count) == whole[cut:]
    for start in range(0, 3 * count, count):
        assert sorted(t.id for _, t in whole[start : start + count]) == sorted(t.id for _, t in tasks)
    stream = TaskStream(tasks, seed)
    assert [row for _ in range(4) for row in stream.next(draw)] == TaskStream(tasks, seed).next(4 * draw)


@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 9), st.lists(st.integers(0, 8), max_size=4))
def test_no_task_comes_twice_in_a_step_wherever_an_epoch_ends(count: int, at: int, seed: int, draws: list[int]) -> None:
    stream = TaskStream(_tasks(count), seed, at)
    step = InTurn(stream)
    drawn = [task.id for draw in draws for _, task in step.next(draw)]
    assert len(drawn) == len(set(drawn)) == min(count, sum(draws)), "each once, and as many as there are"
    passed = [task.id for _, task in TaskStream(_tasks(count), seed, at).next(stream.at - at)]
    assert drawn == list(dict.fromkeys(passed)), "in the order of the stream, and nothing but repeats passed over"
    if at % count + sum(draws) <= count:
        assert stream.at == at + sum(draws), "within an epoch nothing is passed over"


def test_a_step_that_spans_two_epochs_learns_from_no_group_twice() -> None:
    tasks, make = _tasks(5), lambda scenario, task, slot: job("run", "rl-train", 1, scenario, task, slot, 1)
    plain = [task.id for _, task in TaskStream(tasks, 2, 3).next(4)]
    assert len(set(plain)) < 4, "the stream alone would repeat one here"
    settings: Any = SimpleNamespace(
        prompts_per_step=4, group=2, refill_rounds=3, retry_faults=0, advantage="mean", **CHOICES
    )
    player: Any = _Player({str(i): [1.0, 0.0] for i in range(5)}, 99)
    batch = asyncio.run(collect(settings, player, InTurn(TaskStream(tasks, 2, 3)), make))
    assert len({group.task.id for group in batch.kept}) == len(batch.kept) == 4 and batch.episodes == 8
    few: Any = SimpleNamespace(**{**vars(settings), "prompts_per_step": 7})
    batch = asyncio.run(collect(few, player, InTurn(TaskStream(tasks, 2, 3)), make))
    assert sorted(group.task.id for group in batch.kept) == ["0", "1", "2", "3", "4"], "no more than there are"


class _Player:
    """Rewards by task: what its rollouts get, None for a fault, which attempt `mended` turns into a 0."""

    def __init__(self, rewards: dict[str, list[float | None]], mended: int) -> None:
        self.rewards, self.mended, self.played, self.ids = rewards, mended, 0, []

    async def run(self, jobs: Any) -> list[Any]:
        self.played += len(jobs)
        return [self._episode(job) for job in jobs]

    def _episode(self, job: Any) -> Any:
        reward = self.rewards[job.task.id][job.key.rollout]
        self.ids.append((job.key.episode_id, job.key.attempt))
        if reward is None and job.key.attempt >= self.mended:
            reward = 0.0
        reason = EndReason.USER_STOP if reward is not None else EndReason.USER_FAULT
        row = TokenRow((1, 2), (int(Owner.USER), int(Owner.AGENT)), (0.0, -1.0))
        usage = {"turns": 4, "tool_calls": 2, "agent_tokens": 1}
        end = SimpleNamespace(reason=reason)
        return SimpleNamespace(
            reward=reward, valid=reward is not None, end=end, rows=(row,), usage=usage, task_id=job.task.id
        )


def _collect(
    rewards: dict[str, list[float | None]], prompts: int, refills: int, retries: int = 0, mended: int = 99
) -> tuple[Any, Any]:
    group = len(next(iter(rewards.values())))
    settings: Any = SimpleNamespace(
        prompts_per_step=prompts, group=group, refill_rounds=refills, retry_faults=retries, advantage="mean", **CHOICES
    )
    player: Any = _Player(rewards, mended)

    def make(scenario: Any, task: Any, slot: int) -> Any:
        return job("run", "rl-train", 1, scenario, task, slot, 1)

    return asyncio.run(collect(settings, player, InTurn(TaskStream(_tasks(len(rewards)), 1)), make)), player


def test_a_faulty_rollout_leaves_the_groups_baseline_and_the_loss() -> None:
    batch, _ = _collect({"0": [1.0, None, 0.0, 0.0]}, prompts=1, refills=0)
    (group,) = batch.kept
    assert group.advantages == pytest.approx((2 / 3, 0.0, -1 / 3, -1 / 3))
    assert [sample.advantage for sample in samples_of(batch)] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert step_metrics(batch)["faults"] == {"user_fault": 1}


def test_a_slot_that_ended_in_a_fault_is_played_again_under_its_own_id() -> None:
    batch, player = _collect({"0": [1.0, None, 0.0, 0.0]}, prompts=1, refills=0, retries=3, mended=2)
    assert batch.kept[0].rewards == [1.0, 0.0, 0.0, 0.0]
    assert (batch.episodes, player.played, batch.faults) == (6, 6, {"user_fault": 2})
    broken = [attempt for name, attempt in player.ids if name == player.ids[1][0]]
    assert broken == [0, 1, 2]
    row = step_metrics(batch)
    assert (row["episodes"], row["valid_share"]) == (6, 1.0)


def test_a_slot_that_stays_broken_is_left_empty_after_the_last_retry() -> None:
    batch, player = _collect({"0": [1.0, None, 0.0, 0.0]}, prompts=1, refills=0, retries=2)
    assert batch.kept[0].rewards == [1.0, None, 0.0, 0.0] and player.played == 6
    assert batch.faults == {"user_fault": 3} and step_metrics(batch)["valid_share"] == 0.75


def test_groups_that_teach_nothing_are_counted_and_replaced_within_bounds() -> None:
    decided: dict[str, list[float | None]] = {str(i): [1.0, 1.0] for i in range(8)}
    batch, player = _collect(decided, prompts=2, refills=2)
    assert not batch.kept and batch.dropped == {"no_spread": 6} and player.played == 3 * 2 * 2
    row = step_metrics(batch)
    assert (row["all_correct"], row["all_wrong"], row["reward"], row["groups_kept"]) == (1.0, 0.0, 1.0, 0)


def _kept(monkeypatch: pytest.MonkeyPatch, outcomes: list[float], earned: list[float], credit: str) -> Any:
    """The batch of one group whose reward is a rubric that pays `earned` for episodes that ended with `outcomes`."""
    shares = iter(earned)
    monkeypatch.setattr("muarl_cli.pipeline.rl_batches.reward_of", lambda *_: next(shares))
    monkeypatch.setattr("muarl_cli.pipeline.rl_batches.turn_rewards", lambda *_: (0.25, 0.5))
    monkeypatch.setitem(CHOICES, "reward", "rubric")
    monkeypatch.setitem(CHOICES, "credit", credit)
    rewards: list[float | None] = [*outcomes]
    return _collect({"0": rewards}, prompts=1, refills=0)[0]


def test_equal_outcomes_that_a_rubric_tells_apart_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _kept(monkeypatch, [0.0, 0.0], [0.25, 0.75], "episode")
    assert len(batch.kept) == 1 and batch.kept[0].advantages == pytest.approx((-0.25, 0.25))


def test_different_outcomes_that_the_trained_reward_does_not_tell_apart_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = _kept(monkeypatch, [1.0, 0.0], [0.5, 0.5], "episode")
    assert not batch.kept and batch.dropped == {"no_spread": 1}


def test_neither_rounding_nor_credit_by_turn_makes_a_difference_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for credit in ("episode", "turn"):
        batch = _kept(monkeypatch, [1.0, 0.0], [0.1 + 0.2, 0.3], credit)
        assert not batch.kept and batch.dropped == {"no_spread": 1}


def test_no_more_is_played_than_a_full_step_needs() -> None:
    mixed: dict[str, list[float | None]] = {str(i): [1.0, 0.0] for i in range(8)}
    batch, player = _collect(mixed, prompts=3, refills=2)
    assert len(batch.kept) == 3 and player.played == 6


def test_with_credit_by_turn_an_agent_that_never_moved_is_compared_with_and_teaches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the first message of the user fills the context."""
    turns = iter([(), (0.25, 0.5)])
    monkeypatch.setattr("muarl_cli.pipeline.rl_batches.turn_rewards", lambda *_: next(turns))
    monkeypatch.setitem(CHOICES, "credit", "turn")
    batch, _ = _collect({"0": [0.0, 0.75]}, prompts=1, refills=0)
    assert batch.kept[0].advantages == [0.0, pytest.approx((0.375, 0.25))]


def test_a_step_with_fewer_tasks_than_groups_holds_each_of_them_once() -> None:
    decided: dict[str, list[float | None]] = {"0": [1.0, 1.0], "1": [1.0, 0.0]}
    batch, player = _collect(decided, prompts=5, refills=3)
    assert (len(batch.groups), len(batch.kept), player.played) == (2, 1, 4)
    assert len(set(player.ids)) == 4


def test_a_group_of_mostly_faults_is_dropped_for_that_reason() -> None:
    batch, _ = _collect({"0": [1.0, None, None, None]}, prompts=1, refills=0)
    assert not batch.kept and batch.dropped == {"too_few_valid": 1}


@pytest.mark.parametrize(
    ("steps", "epochs", "tasks", "wanted"), [(7, 3.0, 100, 7), (0, 2.0, 100, 6), (0, 0.5, 64, 1), (0, 0.0, 64, 0)]
)
def test_steps_are_as_set_or_whole_steps_of_the_epochs(steps: int, epochs: float, tasks: int, wanted: int) -> None:
    settings: Any = SimpleNamespace(steps=steps, epochs=epochs, prompts_per_step=32)
    assert total_steps(settings, tasks) == wanted


@pytest.mark.parametrize(
    ("epochs", "tasks", "mend"), [(25.0, 31, "prompts_per_step=31"), (0.5, 32, "more epochs, or the number of steps")]
)
def test_epochs_without_a_whole_step_are_refused_for_they_would_never_end(epochs: float, tasks: int, mend: str) -> None:
    settings: Any = SimpleNamespace(steps=0, epochs=epochs, prompts_per_step=32, stop_after_seconds=0.0)
    with pytest.raises(MuarlError, match="no whole step of 32") as caught:
        total_steps(settings, tasks)
    assert mend in caught.value.next_step
    settings.stop_after_seconds = 60.0
    assert total_steps(settings, tasks) == 0, "the clock ends it"
