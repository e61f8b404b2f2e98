"""Two runs: paired, per layer and domain, and warned about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End
from muarl_cli.errors import MuarlError
from muarl_cli.reports.comparison import compare_runs
from muarl_cli.reports.run_view import RunView, load_runs
from muarl_cli.scoring.summary import compare


def test_a_run_compared_with_itself_differs_nowhere(runs: list[RunView]) -> None:
    table, warnings = compare_runs(runs[0], runs[0])
    assert warnings == [] and {row["difference"].mean for row in table.rows} == {0.0}
    assert {row["verdict"] for row in table.rows} == {"no difference seen"}


def test_score_and_layers_are_compared_by_task(runs: list[RunView]) -> None:
    careful, hasty = runs
    table, _ = compare_runs(careful, hasty)
    rows = {(row["measure"], row["domain"]): row for row in table.rows}
    wanted = compare(careful.main, hasty.main, resamples=careful.resamples, seed=careful.seed).difference
    assert rows["score", "all"]["difference"] == wanted
    assert {"clean_success", "corrupt_success", "policy", "safety"} <= {name for name, _ in rows}
    assert rows["policy", "all"]["difference"].mean < 0 and rows["policy", "all"]["verdict"] == "lower"
    assert "communication" not in {name for name, _ in rows}, "a layer that never applied has no difference"


def test_domains_are_compared_one_by_one_where_there_are_several(runs: list[RunView]) -> None:
    def split(run: RunView) -> RunView:
        other = {key for i, key in enumerate(sorted({e.task_hash for e in run.own})) if i % 2}
        return replace(
            run, episodes=tuple(replace(e, scenario="x:other") if e.task_hash in other else e for e in run.own)
        )

    table, _ = compare_runs(split(runs[0]), split(runs[1]))
    domains = [row["domain"] for row in table.rows if row["measure"] == "score"]
    assert domains == ["all", "builtin:retail", "x:other"]
    counts = {row["domain"]: row["difference"].n for row in table.rows if row["measure"] == "score"}
    assert counts["all"] == counts["builtin:retail"] + counts["x:other"]


def test_different_users_policies_tasks_and_faults_are_said(runs: list[RunView]) -> None:
    def changed(run: RunView, i: int) -> RunView:
        episode = run.own[i]
        fault = replace(episode, valid=False, reward=None, end=End(EndReason.USER_FAULT))
        kept = [
            fault if e is episode else replace(e, user={"backend": "llm", "model": "m"}, policy_hash="q")
            for e in run.own
        ]
        return replace(run, episodes=tuple(e for e in kept if e.task_hash != run.own[-1].task_hash), summary=None)

    _, warnings = compare_runs(runs[0], changed(runs[1], 0))
    text = "\n".join(warnings)
    for part in ("different users", "different policies", "different tasks", "shares of invalid", "not finished"):
        assert part in text, part


def test_runs_without_a_common_task_are_refused(runs: list[RunView], folders: dict[str, Path]) -> None:
    (other,) = load_runs([folders["hostile"]])
    with pytest.raises(MuarlError, match="share no task"):
        compare_runs(runs[0], other)
