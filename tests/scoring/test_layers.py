"""Five layers in both built-in scenarios, judged from the log alone (EV-01, 02, 04, 08, 10, 12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scoring.judged_talks import talks

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, StateHashes
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import codec
from muarl_cli.scoring.layer_summary import Judged, summarise_layers
from muarl_cli.scoring.layers import Finding, Layer, Layered, Verdict, judge
from muarl_cli.worlds.domain import BUILTIN, builtin

each_scenario = pytest.mark.parametrize("name", BUILTIN)


@each_scenario
@pytest.mark.parametrize("agent", ["oracle", "careful"])
def test_who_follows_the_policy_is_clean_on_every_layer(name: str, agent: str) -> None:
    for task, episode in talks(name, agent):
        layered = judge(episode, builtin(name), task)
        assert layered.clean_success, (task.id, sorted(layered.failed_rules))
        assert layered.verdict(Layer.OUTCOME) is Verdict.PASS
        assert not layered.corrupt_success


@each_scenario
def test_a_hasty_success_with_a_write_is_a_corrupt_success(name: str) -> None:
    won = [(task, episode) for task, episode in talks(name, "hasty") if task.writes and episode.reward == 1]
    assert len(won) >= 5
    for task, episode in won:
        layered = judge(episode, builtin(name), task)
        assert layered.corrupt_success and not layered.clean_success
        assert (
            {"confirm_before_write"} <= layered.failed_rules <= {"confirm_before_write", "nothing_final_without_a_yes"}
        )


@each_scenario
@pytest.mark.parametrize("agent", ["do-nothing", "transfer-only"])
def test_an_agent_that_does_not_work_has_no_clean_success(name: str, agent: str) -> None:
    rows = talks(name, agent)
    assert not any(judge(episode, builtin(name), task).clean_success for task, episode in rows)
    assert not any(episode.reward for task, episode in rows if task.writes)


@each_scenario
def test_layers_survive_the_log(name: str) -> None:
    task, episode = talks(name, "hasty")[0]
    again = codec.decode(codec.encode(episode))
    assert judge(again, builtin(name), task).to_json() == judge(episode, builtin(name), task).to_json()


@each_scenario
def test_more_reads_and_another_order_of_keys_leave_the_outcome_alone(name: str) -> None:
    task, episode = next((t, e) for t, e in talks(name, "careful") if t.writes)
    reads = [e for e in episode.events if e.call and e.call.klass is ToolClass.READ]
    turned = [
        replace(e, call=replace(e.call, arguments=dict(reversed(e.call.arguments.items()))))
        if e.call and e.call.arguments
        else e
        for e in [*episode.events[:2], *reads, *reads, *episode.events[2:]]
    ]
    changed = replace(episode, events=tuple(replace(e, i=i) for i, e in enumerate(turned)))
    layered = judge(changed, builtin(name), task)
    assert layered.verdict(Layer.OUTCOME) is Verdict.PASS
    assert layered.verdict(Layer.POLICY) is Verdict.PASS


@each_scenario
def test_a_faulty_episode_moves_no_rate_and_is_counted(name: str) -> None:
    domain = builtin(name)
    rows = talks(name, "hasty", most=20)
    judged = [Judged(task.id, judge(episode, domain, task)) for task, episode in rows]
    dead = replace(rows[0][1], end=End(EndReason.INFRA_FAULT), valid=False, reward=None, state=StateHashes())
    fault = judge(dead, domain, rows[0][0])
    assert fault.findings == () and all(fault.verdict(layer) is Verdict.NA for layer in Layer)
    without = summarise_layers(judged, resamples=200, seed=1)
    beside = summarise_layers([*judged, Judged("dead", fault)], resamples=200, seed=1)
    assert beside.pop("episodes") == without.pop("episodes") + 1
    assert beside == without


@each_scenario
def test_missing_gold_is_an_error_and_no_zero(name: str) -> None:
    task, episode = talks(name, "oracle")[0]
    for broken in (replace(episode, reward=None), replace(episode, state=replace(episode.state, gold=""))):
        with pytest.raises(MuarlError) as error:
            judge(broken, builtin(name), task)
        assert error.value.code == ExitCode.BAD_DATA


@each_scenario
def test_order_of_episodes_changes_no_number(name: str) -> None:
    judged = [Judged(task.id, judge(episode, builtin(name), task)) for task, episode in talks(name, "hasty", most=20)]
    assert summarise_layers(judged, resamples=200, seed=1) == summarise_layers(judged[::-1], resamples=200, seed=1)


def test_no_opportunity_is_neither_a_pass_nor_a_fail() -> None:
    na = Finding("r", Layer.POLICY, Verdict.NA, None, "")
    won = Finding("outcome", Layer.OUTCOME, Verdict.PASS, None, "")
    bad = Finding("r", Layer.RECOVERY, Verdict.FAIL, 3, "")
    assert Layered((na,)).verdict(Layer.POLICY) is Verdict.NA
    assert Layered((won, na)).clean_success
    assert not Layered((won, bad)).clean_success
    assert not Layered((won, bad)).corrupt_success, "only policy and safety corrupt a success"
    summary = summarise_layers([Judged("t", Layered((won, na)))], resamples=200, seed=1)
    assert summary["layers"]["policy"] == {"pass": 0, "fail": 0, "na": 1, "rate": None}


def test_two_calls_in_one_turn_and_words_beside_a_call_break_the_form() -> None:
    domain = builtin("retail")
    task, episode = next((t, e) for t, e in talks("retail", "careful") if t.writes)
    at = next(e.i for e in episode.events if e.kind is Kind.CALL)
    call = episode.events[at]
    twice = [*episode.events[:at], replace(call, tags=("same_turn",)), *episode.events[at + 1 :]]
    beside = [*episode.events[:at], Event(at, Actor.AGENT, Kind.SAY, "let me look", None, ("beside_calls",))]
    beside += episode.events[at:]
    for events in (twice, beside):
        changed = replace(episode, events=tuple(replace(e, i=i) for i, e in enumerate(events)))
        assert judge(changed, domain, task).failed_rules == {"one_step_at_a_time"}


def test_an_unknown_kind_or_key_of_a_rule_is_an_error_of_its_author() -> None:
    from muarl_cli.scoring.rules import parse_rules

    wrong: tuple[dict[str, object], ...] = (
        {"id": "a", "kind": "nonsense"},
        {"id": "a", "kind": "format", "colour": 1},
        {"kind": "format"},
        {"id": "a", "kind": "forbidden"},
        {"id": "a", "kind": "once", "tools": ["x"]},
        {"id": "a", "kind": "fault"},
        {"id": "a", "kind": "must_say"},
        {"id": "a", "kind": "must_say", "when": "before"},
        {"id": "a", "kind": "must_say", "when": "on_refuse"},
    )
    for row in wrong:
        with pytest.raises(ValueError, match="here: "):
            parse_rules([row], "here")


def test_a_forbidden_tool_and_a_second_time_are_found() -> None:
    from muarl_cli.scoring.layers import judge_by
    from muarl_cli.scoring.rules import Rulebook, parse_rules

    task, episode = next((t, e) for t, e in talks("retail", "careful") if t.writes)
    write = next(e for e in episode.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.WRITE)
    assert isinstance(write.call, CallRecord)
    rows = [
        {"id": "never", "kind": "forbidden", "tools": [write.call.name]},
        {"id": "once", "kind": "once", "tools": [write.call.name], "same": []},
    ]
    book = Rulebook(parse_rules(rows, "here"))
    assert judge_by(book, episode, task).failed_rules == {"never"}
    pair = episode.events[write.i : write.i + 2]
    events = [*episode.events[: write.i + 2], *pair, *episode.events[write.i + 2 :]]
    again = replace(episode, events=tuple(replace(e, i=i) for i, e in enumerate(events)))
    assert judge_by(book, again, task).failed_rules == {"never", "once"}
