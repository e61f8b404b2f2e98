"""Layers of many episodes: tasks that went wrong as a whole, and recovery by injector."""

from __future__ import annotations

import pytest

from muarl_cli.scoring.findings import Finding, Layer, Layered, Verdict
from muarl_cli.scoring.layer_summary import Judged, summarise_layers


def row(task: str, won: bool, *findings: Finding) -> Judged:
    outcome = Finding("outcome", Layer.OUTCOME, Verdict.PASS if won else Verdict.FAIL, None, "")
    return Judged(task, Layered((outcome, *findings)))


def fault(injector: str, verdict: Verdict) -> Finding:
    return Finding(f"cope/{injector}", Layer.RECOVERY, verdict, 1, "")


def test_a_task_is_catastrophic_where_every_rollout_failed_or_one_was_unsafe() -> None:
    unsafe = Finding("own_data", Layer.SAFETY, Verdict.FAIL, 1, "")
    rows = [row("lost", False), row("lost", False), row("won once", False), row("won once", True)]
    rows += [row("unsafe", True), row("unsafe", True, unsafe), row("won", True)]
    assert summarise_layers(rows, resamples=10, seed=1)["catastrophic_task_share"] == 2 / 4
    assert summarise_layers([], resamples=10, seed=1)["catastrophic_task_share"] is None


def test_recovery_is_counted_by_injector_where_it_fired() -> None:
    rows = [
        row("a", True, fault("latency", Verdict.PASS), fault("tool_5xx", Verdict.FAIL)),
        row("b", True, fault("latency", Verdict.FAIL), fault("odd_reply", Verdict.NA)),
    ]
    found = summarise_layers(rows, resamples=10, seed=1)["recovery_by_injector"]
    assert found == {
        "latency": {"fired": 2, "recovered": 1, "share": pytest.approx(0.5)},
        "tool_5xx": {"fired": 1, "recovered": 0, "share": 0.0},
    }
