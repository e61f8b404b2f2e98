"""Watchdogs on planted histories: each fires on the failure it is named after, and none on a healthy run."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.errors import ExitCode
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import RlTrain
from muarl_cli.settings.resolve import resolve
from muarl_cli.training.watchdogs import RULES, Alarm, Reaction, alarms, begun, end_of_run

SETTINGS: RlTrain = resolve(Stage.RL_TRAIN, environ={}).settings  # type: ignore[assignment]
BOUNDS = SETTINGS.alarm_at.model_dump()
WARN = dict.fromkeys(SETTINGS.watchdogs.model_dump(), "warn")


def _healthy(steps: int, seed: int = 1) -> list[dict[str, Any]]:
    """A run that learns: reward up, entropy down by a half, spread down to a half, noise of some 5 % on everything."""
    draw = random.Random(seed)
    rows = []
    for step in range(steps):
        done = step / max(1, steps - 1)
        noise = 1 + draw.uniform(-0.05, 0.05)
        rows.append(
            {
                "step": step + 1,
                "reward": 0.2 + 0.5 * done,
                "skipped": 0,
                "entropy": (0.4 - 0.2 * done) * noise,
                "reward_spread": (0.4 - 0.2 * done) * noise,
                "loop_share": (0.04 - 0.03 * done) * noise,
                "fault_share": 0.01 * noise,
                "idle_success_share": (0.1 + 0.03 * done) * noise,
                "writes_per_episode": (0.8 + 0.4 * done) * noise,
                "transfer_share": (0.1 - 0.05 * done) * noise,
                "corrupt_success_share": (0.03 + 0.01 * done) * noise,
                "mismatch_k3": 1e-5 * noise,
            }
        )
    return rows


PLANTED: dict[str, tuple[str, float]] = {
    "nan": ("skipped", 3),
    "entropy": ("entropy", 0.01),
    "reward_spread": ("reward_spread", 0.02),
    "loops": ("loop_share", 0.5),
    "faults": ("fault_share", 0.2),
    "do_nothing": ("idle_success_share", 0.6),
    "writes": ("writes_per_episode", 0.0),
    "transfers": ("transfer_share", 0.7),
    "corrupt": ("corrupt_success_share", 0.3),
    "mismatch": ("mismatch_k3", 0.02),
}


def _planted(name: str, steps: int = 30) -> list[dict[str, Any]]:
    """A healthy run in whose second half one figure goes bad."""
    metric, value = PLANTED[name]
    rows = _healthy(steps)
    return rows[: steps // 2] + [row | {metric: value} for row in rows[steps // 2 :]]


def _names(history: list[dict[str, Any]]) -> list[str]:
    return [alarm.name for alarm in alarms(history, WARN, BOUNDS, BOUNDS["window"])]


def test_every_watchdog_has_a_rule_a_reaction_a_bound_and_a_planted_history() -> None:
    assert {*RULES, "nan"} == set(WARN) == set(BOUNDS) - {"window"} == set(PLANTED)


@pytest.mark.parametrize("name", PLANTED)
def test_a_watchdog_fires_on_its_own_failure_and_on_no_other(name: str) -> None:
    assert _names(_planted(name)) == [name]


@given(st.integers(0, 60), st.integers(0, 999))
def test_no_watchdog_fires_on_a_healthy_run_of_any_length(steps: int, seed: int) -> None:
    assert all(_names(_healthy(steps, seed)[:cut]) == [] for cut in range(0, steps + 1, 7))


def test_an_exploding_entropy_is_an_alarm_as_well_as_a_vanishing_one() -> None:
    rows = _healthy(30)
    assert _names(rows[:20] + [row | {"entropy": 5.0} for row in rows[20:]]) == ["entropy"]


@pytest.mark.parametrize("name", PLANTED)
def test_a_figure_that_is_missing_or_not_finite_raises_no_alarm(name: str) -> None:
    metric, _ = PLANTED[name]
    if name != "nan":
        assert _names([{**row, metric: None} for row in _planted(name)]) == []
        assert _names([{**row, metric: float("nan")} for row in _planted(name)]) == []
    assert _names([{k: v for k, v in row.items() if k != metric} for row in _planted(name)]) == []


@pytest.mark.parametrize("name", PLANTED)
def test_an_alarm_is_told_once_when_it_begins(name: str) -> None:
    rows = _planted(name)
    told = [cut for cut in range(1, len(rows) + 1) if begun(rows[:cut], WARN, BOUNDS, BOUNDS["window"])]
    assert len(told) == 1 and told[0] > 15


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "nan"])
def test_bounds_and_window_decide_when_it_fires(name: str) -> None:
    loose = {"entropy": 1e9, "reward_spread": 0.0, "writes": 0.0, "mismatch": 9.0}.get(name, 1.0)
    assert alarms(_planted(name), WARN, BOUNDS | {name: loose}, BOUNDS["window"]) == []
    first = {
        window: next(cut for cut in range(1, 31) if alarms(_planted(name)[:cut], WARN, BOUNDS, window))
        for window in (1, 5)
    }
    assert first[1] == 16 <= first[5]


def test_nan_waits_for_as_many_steps_as_its_bound_says() -> None:
    rows = [row | {"skipped": 2} for row in _healthy(3)]
    assert _names(rows) == [] and alarms(rows, WARN, BOUNDS | {"nan": 2}, 5)[0].name == "nan"


@pytest.mark.parametrize(("reaction", "code"), [("pause", ExitCode.TEMPORARY), ("stop", ExitCode.GATE_FAILED)])
def test_what_ends_a_run_says_why_and_how_to_go_on(reaction: str, code: ExitCode) -> None:
    (alarm,) = alarms(_planted("faults"), WARN | {"faults": reaction}, BOUNDS, BOUNDS["window"])
    assert alarm == Alarm("faults", Reaction(reaction), "20.0% of the conversations end in a fault")
    error = end_of_run(alarm, "runs/rl")
    assert error.code is code and "20.0%" in error.why and "watchdogs.faults=warn" in error.next_step
