"""Which checkpoint of a training run is kept for what the agent earned."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.pipeline.peak import Peak


def test_a_checkpoint_counts_the_steps_since_the_one_before_and_the_later_of_equals_is_kept() -> None:
    history = [{"reward": reward} for reward in (0.0, 0.4, 0.9, 0.1, 0.5, 0.5)]
    peak = Peak()
    assert [peak.passed(history[:step], step) for step in (2, 4, 6)] == [True, True, True]
    assert peak.place == (6, 0.5)
    peak = Peak()
    assert [peak.passed(history[:step], step) for step in (3, 4)] == [True, False] and peak.place == (3, 0.433333)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 12))
def test_a_resumed_run_marks_what_a_straight_one_does(rewards: list[float], every: int, killed: int) -> None:
    history = [{"reward": reward} for reward in rewards]
    saves = [step for step in range(1, len(rewards) + 1) if step % every == 0]
    straight, resumed = Peak(), Peak()
    marks, again = [], []
    for step in saves:
        marks.append(straight.passed(history[:step], step))
        again.append(resumed.passed(history[:step], step))
        if step <= killed < step + every:  # its state is read from the checkpoint: JSON has no tuples
            resumed = Peak(step, list(resumed.place or ()))
    assert marks == again and straight.place == resumed.place
