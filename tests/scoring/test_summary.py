"""The summary: faults stay out of rates and in the counts, order changes nothing, missing gold is an error."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from scoring.episode_maker import Talk, make_episode

from muarl_cli.conversation.ends import FAULTS, EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import MuarlError
from muarl_cli.scoring.summary import ScoreSummary, by_user, compare, summarise


def score(episodes: list[Episode], **options: Any) -> ScoreSummary:
    return summarise(episodes, resamples=500, seed=0, **options)


def trials(task: str, *rewards: float) -> list[Episode]:
    return [make_episode(task, reward, rollout) for rollout, reward in enumerate(rewards)]


def test_order_of_episodes_changes_no_number() -> None:
    episodes = [e for i in range(30) for e in trials(f"t{i}", *(float((i * r) % 3 == 0) for r in range(4)))]
    episodes.append(make_episode("t1", None, 9, EndReason.USER_FAULT))
    writes = {f"t{i}": i % 2 == 0 for i in range(30)}
    families = {f"t{i}": f"f{i % 3}" for i in range(30)}
    expected = json.dumps(score(episodes, writes=writes, families=families).to_json())
    for seed in range(5):
        shuffled = random.Random(seed).sample(episodes, len(episodes))
        assert json.dumps(score(shuffled, writes=writes, families=families).to_json()) == expected


@pytest.mark.parametrize("reason", [*sorted(FAULTS), EndReason.LIMIT_BUDGET])
def test_a_fault_changes_no_rate_and_is_counted(reason: EndReason) -> None:
    good = [e for i in range(25) for e in trials(f"t{i}", float(i % 2), 1.0)]
    clean, hurt = score(good), score([*good, make_episode("t0", None, 7, reason)])
    for name in ("score", "pass_hat", "pass_at", "all_correct", "all_wrong", "usage", "behaviour"):
        assert getattr(clean, name) == getattr(hurt, name)
    assert (hurt.done, hurt.valid, dict(hurt.faults)) == (51, 50, {reason.value: 1})
    assert hurt.result == "ok"
    assert hurt.score_faults_failed.mean < hurt.score.mean == clean.score.mean == clean.score_faults_failed.mean


def test_running_into_the_agents_limit_is_a_failure_not_a_fault() -> None:
    summary = score([make_episode("a", 1.0), make_episode("b", 0.0, reason=EndReason.LIMIT_AGENT)])
    assert (summary.valid, summary.score.mean, dict(summary.faults)) == (2, 0.5, {})
    assert dict(summary.ends) == {"limit_agent": 1, "user_stop": 1}


def test_more_than_five_percent_faults_makes_the_result_invalid() -> None:
    good = [make_episode(f"t{i}", 1.0) for i in range(19)]
    at_limit = score([*good, make_episode("x", None, reason=EndReason.INFRA_FAULT)])
    beyond = score([*good[:-1], make_episode("x", None, reason=EndReason.INFRA_FAULT)])
    assert (at_limit.result, beyond.result) == ("ok", "invalid")
    assert "1 infra_fault" in beyond.reasons[0]


def test_missing_episodes_make_the_result_partial_and_none_makes_it_empty() -> None:
    assert score([make_episode("a", 1.0)], planned=3).result == "partial"
    empty = score([], planned=3)
    assert (empty.result, empty.score, empty.headline()["mean"]) == ("empty", None, None)
    json.dumps(empty.to_json(), allow_nan=False)


def test_every_task_weighs_the_same_however_many_trials_survived() -> None:
    summary = score([*trials("a", 1.0, 1.0, 1.0, 1.0), *trials("b", 0.0)])
    assert summary.score.mean == 0.5
    assert summary.trials == (1, 4) and list(summary.pass_hat) == [1]
    assert any("pass^k stops at k = 1" in reason for reason in summary.reasons)


def test_pass_rates_and_dead_groups_agree() -> None:
    summary = score([*trials("a", 1, 1, 1), *trials("b", 0, 0, 0), *trials("c", 1, 0, 0), *trials("d", 0, 0, 0)])
    assert summary.pass_hat[1].mean == summary.score.mean == pytest.approx(1 / 3)
    assert summary.pass_hat[3].mean == summary.all_correct == 0.25
    assert 1 - summary.pass_at[3].mean == summary.all_wrong == 0.5


def test_write_and_no_write_tasks_are_told_apart_by_hash_or_id() -> None:
    episodes = [make_episode("a", 1.0), make_episode("b", 0.0), make_episode("c", 0.0)]
    summary = score(
        episodes, writes={"hash-a": False, "b": True, "c": True}, families={"a": "ask", "b": "buy", "c": "buy"}
    )
    assert (summary.no_write_tasks.mean, summary.write_tasks.mean, summary.write_tasks.n) == (1.0, 0.0, 2)
    assert {name: value.mean for name, value in summary.families.items()} == {"ask": 1.0, "buy": 0.0}
    assert summary.headline()["write_tasks_only"] == 0.0
    assert score(episodes).write_tasks is None


def test_a_task_of_unknown_kind_is_an_error_not_a_zero() -> None:
    with pytest.raises(MuarlError, match="needs a write"):
        score([make_episode("a", 1.0)], writes={"b": True})


@pytest.mark.parametrize("reward", [None, float("nan")])
def test_a_valid_episode_without_reward_is_an_error_not_a_zero(reward: float | None) -> None:
    with pytest.raises(MuarlError, match="has no reward"):
        score([make_episode("a", reward)])


def test_a_later_attempt_replaces_the_fault_it_mended() -> None:
    fault = make_episode("a", None, 0, EndReason.TOOL_FAULT)
    mended = make_episode("a", 1.0, 0, attempt=1)
    for episodes in ([fault, mended], [mended, fault]):
        summary = score(episodes)
        assert (summary.done, summary.valid, summary.retried, summary.score.mean) == (1, 1, 1, 1.0)


def test_usage_counts_valid_episodes() -> None:
    events = Talk().user("hi").call("get").call("put").agent("done").user("bye").end()
    summary = score(
        [make_episode("a", 1.0, tokens=30, events=events), make_episode("b", 1.0, tokens=10, events=events)]
    )
    assert (summary.usage["user_turns"], summary.usage["tool_calls"], summary.usage["turns"]) == (2, 2, 4)
    assert (summary.usage["agent_tokens"], summary.usage["agent_tokens_p95"]) == (20, 30)


def test_comparison_is_paired_and_warns_of_unequal_faults() -> None:
    before = score([make_episode(f"t{i}", float(i % 4 == 0)) for i in range(40)])
    after_episodes = [make_episode(f"t{i}", float(i % 2 == 0)) for i in range(40)]
    comparison = compare(before, score(after_episodes), resamples=2000, seed=0)
    assert comparison.difference.mean == 0.25 and comparison.difference.above_zero and not comparison.warnings
    hurt = score([*after_episodes[:-1], make_episode("t39", None, reason=EndReason.USER_FAULT)])
    warned = compare(before, hurt, resamples=2000, seed=0)
    assert warned.difference.n == 39 and len(warned.warnings) == 2


def test_scores_by_user_have_both_denominators_and_a_spread_only_with_two_users() -> None:
    def against(user: str, task: str, reward: float | None, rollout: int) -> Episode:
        reason = EndReason.USER_STOP if reward is not None else EndReason.USER_FAULT
        episode = make_episode(task, reward, rollout, reason)
        return replace(episode, user={"backend": "llm", "model": user})

    kind = [against("kind", f"t{i}", 1.0, 0) for i in range(4)]
    harsh = [against("harsh", f"t{i}", float(i == 0) if i else None, 1) for i in range(4)]
    alone = by_user(kind, resamples=200, seed=0)
    assert alone["spread"] is None and list(alone["scores"]) == ["llm kind"]
    both = by_user([*kind, *harsh], resamples=200, seed=0)
    assert both["spread"] == pytest.approx(1.0)
    assert both["scores"]["llm harsh"]["score"]["n"] == 3
    assert both["scores"]["llm harsh"]["score_faults_failed"]["n"] == 4
