"""Curves: what a run has is drawn, what it has not is left out, and nothing in a chart is code."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.reports.curves import PANELS, Chart, Series, bars, learning_curves, legend, svg
from muarl_cli.reports.run_view import RunView

NUMBERS = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_subnormal=False))


def test_the_papers_nine_panels_come_first_and_a_metric_that_is_missing_draws_nothing(runs: list[RunView]) -> None:
    names = [names[-1] for _, names in PANELS]
    rows = tuple({"step": step, **dict.fromkeys(names, step / 10)} for step in (1, 2, 3))
    full = replace(runs[0], metrics=rows, stage="rollout")
    assert [chart.title for chart in learning_curves([full])] == [title for title, _ in PANELS]
    part = replace(runs[0], metrics=({"step": 1, "reward": 0.5, "kl": None},), stage="rollout")
    assert [chart.title for chart in learning_curves([part])] == ["reward"]


def test_the_log_of_an_rl_run_gives_what_its_metrics_lack(runs: list[RunView]) -> None:
    trained = replace(runs[0], stage="rl-train", metrics=({"step": 0, "reward": 1.0},))
    charts = {chart.title: chart for chart in learning_curves([trained])}
    (line,) = charts["unique 4-gram share"].series
    pooled = runs[0].main.behaviour.to_json()["unique_4gram_share"]
    assert line.points == ((0, pytest.approx(pooled)),)
    assert charts["turns"].series[0].points[0][1] == pytest.approx(runs[0].main.usage["turns"])


def test_a_run_keeps_its_colour_in_every_chart() -> None:
    charts = [
        Chart("a", (Series("one", ((1, 1.0),), 0), Series("two", ((1, 2.0),), 1))),
        Chart("b", (Series("two", ((1, 2.0),), 1),)),
    ]
    colour = {line["name"]: line["colour"] for line in legend(charts)}
    assert colour["two"] in svg(charts[0]) and colour["two"] in svg(charts[1]) and colour["one"] not in svg(charts[1])


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.text(max_size=20))
def test_any_chart_is_well_formed_and_stays_inside_its_frame(values: list[float | None], name: str) -> None:
    chart = Chart(name, (Series(name, tuple((float(i), y) for i, y in enumerate(values))),))
    root = ElementTree.fromstring(svg(chart, standalone=True))
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 320 and 0 <= y <= 190
    ElementTree.fromstring(bars([(name, {"pass": 0.5, "fail": 0.5})], ("pass", "fail", "na")))
