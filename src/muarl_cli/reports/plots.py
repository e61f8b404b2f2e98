"""Plots for papers: learning curves, scores with intervals, and layers, each as PNG and SVG, drawn by matplotlib.

Invariant: a plot shows the very numbers of the report's tables and charts, and equal data give equal SVG bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from muarl_cli.reports.curves import COLOURS, Chart, learning_curves
from muarl_cli.reports.figures import visible
from muarl_cli.reports.layer_tables import layer_shares
from muarl_cli.reports.run_tables import named_scores
from muarl_cli.reports.run_view import RunView

DPI = 300
"""what journals ask of line art in a column"""
COLUMN, PAGE = 3.4, 7.0
"""inches: the width of one column, and of a page of two"""
_STYLE: Mapping[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "muarl",
    "text.usetex": False,
    "text.parse_math": False,
}
_SHADES = {"pass": "#1f8a4c", "fail": "#b3261e", "na": "#9a9a9a"}


def write_plots(runs: Sequence[RunView], folder: Path) -> list[str]:
    """Write the plots that these runs have data for; the names of the files. Needs the extra `plots`."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plt = import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    with plt.rc_context(_STYLE):
        for name, figure in (
            ("curves", _curves(plt, learning_curves(runs))),
            ("scores", _scores(plt, [run for run in runs if run.own])),
            ("layers", _layers(plt, runs)),
        ):
            if figure is None:
                continue
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                figure.savefig(folder / f"{name}.{kind}", dpi=DPI, metadata=metadata)
                names.append(f"{name}.{kind}")
            plt.close(figure)
    return names


def _curves(plt: Any, charts: Sequence[Chart]) -> Any:
    """A panel a chart, three in a row; one legend for all, since a run has the same colour in each."""
    if not charts:
        return None
    rows = (len(charts) + 2) // 3
    figure, axes = plt.subplots(rows, 3, figsize=(PAGE, 1.7 * rows), squeeze=False, layout="constrained")
    lines: dict[str, Any] = {}
    for axis, chart in zip(axes.flat, charts, strict=False):
        for series in chart.series:
            xs, ys = [x for x, _ in series.points], [float("nan") if y is None else y for _, y in series.points]
            colour = COLOURS[series.style % len(COLOURS)]
            marker = "." if sum(y == y for y in ys) < 2 else ""
            (lines[visible(series.name)],) = axis.plot(xs, ys, color=colour, linewidth=1, marker=marker)
        axis.set_title(visible(chart.title), loc="left")
        axis.set_xlabel("step")
    for axis in axes.flat[len(charts) :]:
        axis.set_visible(False)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _scores(plt: Any, runs: Sequence[RunView]) -> Any:
    """A dot a result with its 95 % interval, all tasks beside those that need a write."""
    scores = named_scores(runs) if runs else {}
    known = [(name, score) for name, score in scores.items() if score.score is not None]
    if not known:
        return None
    figure, axis = plt.subplots(figsize=(COLUMN, 0.6 + 0.32 * len(known)), layout="constrained")
    for shift, colour, label, of in (
        (-0.12, COLOURS[0], "all tasks", lambda score: score.score),
        (0.12, COLOURS[1], "tasks with a write", lambda score: score.write_tasks),
    ):
        points = [(place + shift, value) for place, (_, score) in enumerate(known) if (value := of(score)) is not None]
        if points:
            means = [value.mean for _, value in points]
            reach = [[v.mean - v.low for _, v in points], [v.high - v.mean for _, v in points]]
            axis.errorbar(means, [y for y, _ in points], xerr=reach, fmt="o", ms=3, lw=1, color=colour, label=label)
    axis.set_yticks(range(len(known)), [visible(name.replace("_", " ")) for name, _ in known])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("score, 95 % interval over tasks")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _layers(plt: Any, runs: Sequence[RunView]) -> Any:
    """Stacked shares of pass, fail and not applicable, a panel a run."""
    judged = [(run, shares) for run in runs if (shares := layer_shares(run))]
    if not judged:
        return None
    height = 0.5 + 1.3 * len(judged)
    figure, axes = plt.subplots(len(judged), 1, figsize=(COLUMN, height), squeeze=False, layout="constrained")
    for axis, (run, shares) in zip(axes.flat, judged, strict=True):
        left = [0.0] * len(shares)
        for part, colour in _SHADES.items():
            widths = [row[part] for _, row in shares]
            label = "does not apply" if part == "na" else part
            axis.barh([name for name, _ in shares], widths, left=left, color=colour, label=label)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_title(visible(run.name), loc="left")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
