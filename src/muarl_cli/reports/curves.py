"""Line charts as SVG, drawn in Python: for the report, and as files for papers.

Invariant: a chart is plain SVG with presentation attributes and no script, style or link in it, so it can stand in a
page with a strict content policy; every text in it is escaped; equal data give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from muarl_cli.reports.figures import visible
from muarl_cli.reports.run_view import RunView
from muarl_cli.scoring.metrics import pool

COLOURS = ("#2266cc", "#c2560c", "#1f8a4c", "#a02c8e", "#8a6d00", "#0f8b8d", "#b3261e", "#5b5b5b")
"""told apart by people who see no red or green, and on white and on dark grey; lines differ in dashes as well"""
DASHES = ("", "6 3", "2 2", "8 3 2 3")
WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 24, 30


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points in order of x; y None where there is no value."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    style: int = 0
    """which colour and dashes: the same for one run in all charts"""


@dataclass(frozen=True)
class Chart:
    title: str
    series: tuple[Series, ...]

    @property
    def drawable(self) -> bool:
        return any(y is not None and math.isfinite(y) for line in self.series for _, y in line.points)


PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("KL loss", ("kl",)),
    ("entropy of sampled tokens", ("entropy",)),
    ("gradient norm", ("grad_norm",)),
    ("reward", ("reward",)),
    ("turns", ("counted_turns", "turns")),
    ("response length (agent tokens)", ("agent_tokens_per_episode",)),
    ("unique 4-gram share", ("unique_4gram_share",)),
    ("all-correct queries", ("all_correct",)),
    ("all-wrong queries", ("all_wrong",)),
)
"""the nine panels of the paper's training figure; of each, the first metric that a run has"""
MORE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss",)),
    ("held-out loss", ("eval_loss",)),
    ("tool calls", ("tool_calls",)),
    ("turns of the agent", ("agent_turns",)),
    ("writes", ("writes_per_episode",)),
    ("spread of rewards within groups", ("reward_spread",)),
    ("rewarded with a rule broken", ("corrupt_success_share",)),
    ("transfers to a human", ("transfer_share",)),
    ("calculate and think calls", ("generic_calls",)),
    ("log-probability gap, trainer and sampler", ("mismatch_abs",)),
    ("faults", ("fault_share",)),
    ("learning rate", ("lr",)),
)


def learning_curves(runs: Sequence[RunView]) -> list[Chart]:
    """The charts that these runs have data for, the paper's nine first; one line a run."""
    rows = {run.name: step_rows(run) for run in runs}
    charts = []
    for title, names in (*PANELS, *MORE):
        lines = []
        for style, run in enumerate(runs):
            name = next((name for name in names if any(row.get(name) is not None for row in rows[run.name])), "")
            if name:
                points = tuple((row["step"], _number(row.get(name))) for row in rows[run.name])
                lines.append(Series(run.name, points, style))
        chart = Chart(title, tuple(lines))
        if chart.drawable:
            charts.append(chart)
    return charts


def step_rows(run: RunView) -> list[dict[str, Any]]:
    """The metrics of a run by step, with what only its log knows: varied words, both turn counts, generic calls."""
    rows: dict[int, dict[str, Any]] = {}
    for row in run.metrics:
        rows.setdefault(row["step"], {}).update(row)
    by_step: dict[int, list[Any]] = {}
    if run.stage == "rl-train":
        for episode in run.own:
            by_step.setdefault(episode.step, []).append(episode)
    for step, episodes in by_step.items():
        valid = [e for e in episodes if e.valid]
        said = pool(e.events for e in valid)
        found = said.to_json()
        row = rows.setdefault(step, {"step": step})
        known = {
            "unique_4gram_share": found["unique_4gram_share"],
            "transfer_share": found["transfer_share"],
            "generic_calls": found["generic_calls_per_episode"],
            "counted_turns": said.counts.turns / len(valid) if valid else None,
            "fault_share": 1 - len(valid) / len(episodes),
        }
        row.update({name: value for name, value in known.items() if name not in row})  # the run's own figures first
    return [rows[step] for step in sorted(rows)]


def svg(chart: Chart, standalone: bool = False) -> str:
    """The chart as SVG text; `standalone` adds what a file of its own needs (white ground, namespace)."""
    points = [(x, y) for line in chart.series for x, y in line.points if y is not None and math.isfinite(y)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = _range(xs)
    ticks = _ticks(*_range(ys))
    y_low, y_high = ticks[0], ticks[-1]

    def at(x: float, y: float) -> str:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{_escape(_caption(chart))}" font-family="sans-serif" font-size="10" '
        'fill="currentColor">'
    ]
    if standalone:
        parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>')
    parts.append(f'<text x="{_LEFT}" y="14" font-size="12" font-weight="bold">{_escape(chart.title)}</text>')
    for tick in ticks:
        place = at(x_low, tick).split(",")[1]
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place}" y2="{place}" stroke="currentColor" '
            f'stroke-opacity="0.15"/><text x="{_LEFT - 4}" y="{float(place) + 3:.1f}" text-anchor="end">'
            f"{_short(tick)}</text>"
        )
    for x, anchor in ((x_low, "start"), (x_high, "end")):
        place = at(x, y_low).split(",")[0]
        parts.append(f'<text x="{place}" y="{HEIGHT - _BOTTOM + 13}" text-anchor="{anchor}">{_short(x)}</text>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    for line in chart.series:
        parts += _line(line, at)
    return "".join([*parts, "</svg>"])


def legend(charts: Sequence[Chart]) -> list[dict[str, str]]:
    """Name, colour and dashes of every line in these charts, each once."""
    styles = {line.name: line.style for chart in charts for line in chart.series}
    return [
        {"name": name, "colour": _colour(i), "dash": _dash(i)} for name, i in sorted(styles.items(), key=lambda s: s[1])
    ]


def _line(line: Series, at: Any) -> list[str]:
    """One polyline a stretch without gaps; a lone point becomes a dot."""
    i, stretches = line.style, list[list[str]]([[]])
    for x, y in line.points:
        if y is None or not math.isfinite(y):
            stretches.append([])
        else:
            stretches[-1].append(at(x, y))
    dash = f' stroke-dasharray="{_dash(i)}"' if _dash(i) else ""
    parts = [f"<g><title>{_escape(line.name)}</title>"]
    for stretch in filter(None, stretches):
        if len(stretch) == 1:
            across, down = stretch[0].split(",")
            parts.append(f'<circle cx="{across}" cy="{down}" r="2.5" fill="{_colour(i)}"/>')
        else:
            parts.append(
                f'<polyline points="{" ".join(stretch)}" fill="none" stroke="{_colour(i)}" stroke-width="1.6"{dash}/>'
            )
    return [*parts, "</g>"]


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return (0.0, 1.0) if 0 <= low <= 1 else (low - 0.5, high + 0.5)  # a flat share is drawn between none and all


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from at or below `low` to at or above `high`."""
    rough = (high - low) / 4
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough)
    first = math.floor(low / step)
    count = math.ceil(high / step - 1e-9) - first
    return [(first + i) * step for i in range(max(1, count) + 1)]


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.4g}".replace("-", "−")
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def _caption(chart: Chart) -> str:
    """The chart in a sentence, for those who cannot see it."""
    said = []
    for line in chart.series:
        known = [(x, y) for x, y in line.points if y is not None]
        if known:
            said.append(
                f"{line.name} from {_short(known[0][1])} to {_short(known[-1][1])} at step {_short(known[-1][0])}"
            )
    return f"{chart.title}: {'; '.join(said)}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _dash(i: int) -> str:
    return DASHES[i // len(COLOURS) % len(DASHES)] if i >= len(COLOURS) else DASHES[i % len(DASHES)] if i else ""


def _escape(text: str) -> str:
    return escape(visible(text), quote=True)


def bars(rows: Sequence[tuple[str, Mapping[str, float]]], parts: Sequence[str]) -> str:
    """Horizontal stacked shares, a row each (label, share by part), in green, red and grey by part."""
    shades = ("#1f8a4c", "#b3261e", "#9a9a9a")
    height = 22 * len(rows) + 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {height}" width="520" height="{height}" role="img" '
        f'aria-label="{_escape("; ".join(_shares(row) for row in rows))}" font-family="sans-serif" font-size="11" '
        'fill="currentColor">'
    ]
    for i, (label, shares) in enumerate(rows):
        y, x = 22 * i + 4, 210.0
        drawn.append(f'<text x="204" y="{y + 12}" text-anchor="end">{_escape(label)}</text>')
        for j, part in enumerate(parts):
            width = 300 * shares.get(part, 0.0)
            if width > 0:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{shades[j % len(shades)]}">'
                    f"<title>{_escape(f'{label}: {part} {shares[part]:.1%}')}</title></rect>"
                )
            x += width
    return "".join([*drawn, "</svg>"])


def _shares(row: tuple[str, Mapping[str, float]]) -> str:
    return f"{row[0]}: " + ", ".join(f"{part} {share:.0%}" for part, share in row[1].items())
