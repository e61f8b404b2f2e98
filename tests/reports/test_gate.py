"""The gate: what cannot be measured fails, and so does a run that is not done."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from muarl_cli.errors import MuarlError
from muarl_cli.reports.gate import Bound, check_run, gate_table, junit, markdown, parse_bound
from muarl_cli.reports.measures import measures
from muarl_cli.reports.run_view import RunView


def outcome(run: RunView, *bounds: Bound, **more: object) -> dict[str, bool]:
    return {check.name: check.passed for check in check_run(run, bounds, **more)}  # type: ignore[arg-type]


def test_bounds_hold_at_equality_and_fail_beyond(runs: list[RunView]) -> None:
    value = measures(runs[1])["score"].value
    assert value is not None
    assert outcome(runs[1], Bound("score", value, True), Bound("score", value, False)).popitem()[1] is True
    assert not outcome(runs[1], Bound("score", value + 1e-6, True)).popitem()[1]
    assert not outcome(runs[1], Bound("score", value - 1e-6, False)).popitem()[1]


def test_clean_success_and_safety_events_are_gated(runs: list[RunView]) -> None:
    bounds = [parse_bound("clean_success=0.6", True), parse_bound("safety_events=0", False)]
    assert all(outcome(runs[0], *bounds).values())
    assert outcome(runs[1], *bounds) == {
        "the run is complete": True,
        "clean_success >= 0.6": False,
        "safety_events <= 0": True,
    }


def test_what_was_not_scored_fails_instead_of_passing(runs: list[RunView]) -> None:
    bare = replace(runs[0], verdicts={}, tasks={})
    found = outcome(bare, parse_bound("clean_success=0", True), parse_bound("safety_events=0", False))
    assert list(found.values()) == [True, False, False]


def test_an_unfinished_run_fails_whatever_its_figures(runs: list[RunView]) -> None:
    (check, *_) = check_run(replace(runs[0], summary=None), [])
    assert not check.passed and check.figure == "unfinished"


def test_a_regression_fails_paired_and_an_equal_run_passes(runs: list[RunView]) -> None:
    careful, hasty = runs
    policy = parse_bound("policy=0", True)
    worse = outcome(hasty, policy, baseline=careful, paired=True)
    assert worse["policy >= 0"] and not worse["policy not worse than the baseline"]
    assert all(outcome(careful, policy, baseline=hasty, paired=True).values())
    assert all(outcome(careful, policy, baseline=careful, paired=True).values())
    assert not outcome(hasty, policy, baseline=careful)["policy not worse than the baseline"]
    corrupt = parse_bound("corrupt_success=1", False)
    direction = outcome(hasty, corrupt, baseline=careful)["corrupt_success not worse than the baseline"]
    assert direction is (measures(hasty)["corrupt_success"].value == 0), "of a maximum, more is worse"


def test_a_measure_with_both_bounds_may_become_worse_in_neither_direction(runs: list[RunView]) -> None:
    careful, hasty = runs
    both = parse_bound("policy=0", True), parse_bound("policy=1", False)
    fell = outcome(hasty, *both, baseline=careful)
    assert not fell["policy not worse than the baseline"]
    assert fell["policy not worse than the baseline (as a maximum)"]
    rose = outcome(careful, *both, baseline=hasty)
    assert rose["policy not worse than the baseline"]
    assert not rose["policy not worse than the baseline (as a maximum)"]


@pytest.mark.parametrize("text", ["score", "score=", "=1", "score=x", "score>=1", "score=nan"])
def test_a_bound_that_is_none_is_explained(text: str) -> None:
    with pytest.raises(MuarlError, match="is no bound"):
        parse_bound(text, True)


def test_an_unknown_measure_names_the_nearest(runs: list[RunView]) -> None:
    with pytest.raises(MuarlError, match="clean_success"):
        check_run(runs[0], [parse_bound("clean_sucess=1", True)])


def test_junit_and_markdown_say_what_the_table_says(runs: list[RunView]) -> None:
    odd = replace(runs[1], name="a<b>&](x)\x1b[31m|\x00")
    checks = check_run(odd, [parse_bound("score=0.99", True)], runs[0], True)
    table = gate_table(checks, odd, runs[0])
    root = ElementTree.fromstring(junit(checks, odd))
    cases = root.findall(".//testcase")
    assert [case.attrib["name"] for case in cases] == [check.name for check in checks]
    failed = [case.attrib["name"] for case in cases if case.find("failure") is not None]
    assert failed == [check.name for check in checks if not check.passed]
    assert root.attrib["failures"] == str(len(failed)) == "2"
    text = markdown(table)
    assert text.count("FAIL") == 2 and "<b>" not in text and "](" not in text and "\x1b" not in text
