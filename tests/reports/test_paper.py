"""Scores beside the paper's: labelled by what differs, nothing of the paper's changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, Episode
from muarl_cli.reports.paper import paper_tables, published
from muarl_cli.reports.run_view import RunView

MODELS = ("Qwen3-8B", "MUA-RL-8B", "MUA-RL-14B", "MUA-RL-32B", "GPT-4.1")


def _as(run: RunView, *sets: str, **changes: Any) -> RunView:
    """The run, its episodes spread over the given benchmark sets."""
    user = {"backend": "llm", "model": "gpt-4.1-2025-04-14"}

    def moved(episode: Episode, i: int) -> Episode:
        detail = {"revision": {"data": "BFCL_v3"}}
        return replace(episode, scenario=sets[i % len(sets)], split="v3", user=user, detail=detail)

    own = {e.episode_id: i for i, e in enumerate(run.own)}
    episodes = tuple(moved(e, own[e.episode_id]) if e.episode_id in own else e for e in run.episodes)
    return replace(run, episodes=episodes, **changes)


def test_the_papers_overall_scores_are_the_unweighted_means_of_its_sets() -> None:
    for source, overall in published()["overall"].items():
        sets = [values for name, values in published()["sets"].items() if name.startswith(f"{source}:")]
        for place, value in enumerate(overall):
            column = [values[place] for values in sets]
            if None not in column:
                assert value == pytest.approx(sum(column) / len(column), abs=0.13), (
                    source,
                    MODELS[place],
                )  # one of them is a tenth off


def test_a_set_stands_beside_the_papers_numbers_with_its_data_and_user(runs: list[RunView]) -> None:
    careful = _as(runs[0], "bfcl:base")
    measured, beside = paper_tables([careful])
    (row,), (shown,) = measured.rows, beside.rows
    assert row["score"] == careful.main.score and row["score_faults_failed"] == careful.main.score_faults_failed
    assert (row["user"], row["data"]) == ("llm gpt-4.1-2025-04-14", "v3 BFCL_v3")
    assert [shown[model] for model in MODELS] == ["20.0", "21.0", "40.5", "42.0", "48.0"]
    assert shown["percent"].startswith(f"{100 * careful.main.score.mean:.1f} [")  # type: ignore[union-attr]
    assert shown["differs"] == "trials, a scripted agent"


def test_what_is_not_as_in_the_paper_is_said(runs: list[RunView]) -> None:
    run = _as(runs[0], "tau2:retail", summary={"overlap": [{}, {}]})
    episodes = tuple(replace(e, user={"backend": "llm", "model": "qwen"}) for e in run.episodes)
    _, beside = paper_tables([replace(run, episodes=episodes)])
    said = beside.rows[0]["differs"]
    assert all(part in said for part in ("user", "data revision", "trained on 2 of the tasks"))


def test_an_overall_score_needs_every_set_and_has_no_interval(runs: list[RunView]) -> None:
    four = ("bfcl:base", "bfcl:miss_func", "bfcl:miss_param", "bfcl:long_context")
    _, some = paper_tables([_as(runs[0], *four[:3])])
    assert len(some.rows) == 3
    measured, every = paper_tables([_as(runs[0], *four)])
    assert len(measured.rows) == 4 and len(every.rows) == 5
    mean = sum(row["score"].mean for row in measured.rows) / 4
    assert every.rows[-1]["percent"] == f"{100 * mean:.1f}" and every.rows[-1]["MUA-RL-32B"] == "28.4"


def test_faults_count_as_failures_in_the_second_score(runs: list[RunView]) -> None:
    run = _as(runs[0], "bfcl:base")
    won = next(e for e in run.own if e.reward == 1.0)
    hurt = replace(won, valid=False, reward=None, end=End(EndReason.INFRA_FAULT))
    measured, _ = paper_tables([replace(run, episodes=tuple(hurt if e is won else e for e in run.episodes))])
    row = measured.rows[0]
    assert row["score_faults_failed"].mean < run.main.score_faults_failed.mean  # type: ignore[union-attr]


def test_runs_of_other_sets_have_no_row(runs: list[RunView]) -> None:
    measured, beside = paper_tables(runs)
    assert measured.rows == beside.rows == ()
