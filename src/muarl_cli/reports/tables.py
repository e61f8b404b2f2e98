"""Tables: one list of rows, shown three ways (terminal, Markdown, JSON), so that the numbers agree.

A `Table` holds raw values; its columns say how they are written. `rich` is imported only to draw, and cell text is
never read as markup: task and model names come from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from muarl_cli.reports.figures import NOTHING, decimal, interval, percent, plain
from muarl_cli.scoring.statistics import Difference, Interval, holm
from muarl_cli.scoring.summary import Comparison, ScoreSummary

FLOORS = ("do_nothing", "transfer_only")
"""shown first, in this order, wherever results are compared"""


class Style(StrEnum):
    """How the values of a column are written."""

    TEXT = "text"
    COUNT = "count"
    DECIMAL = "decimal"
    PERCENT = "percent"
    INTERVAL = "interval"
    DIFFERENCE = "difference"
    """an interval with signs"""
    P_VALUE = "p_value"


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    style: Style = Style.TEXT


@dataclass(frozen=True)
class Table:
    """Rows map column keys to raw values: text, numbers, `Interval`, `Difference`, or None for nothing to measure."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    def texts(self) -> list[list[str]]:
        """The cells as written, a list a row."""
        return [[_text(row.get(column.key), column.style) for column in self.columns] for row in self.rows]

    def to_json(self) -> list[dict[str, Any]]:
        """The same rows with full precision."""
        return [{column.key: _raw(row.get(column.key)) for column in self.columns} for row in self.rows]

    def markdown(self) -> str:
        """A Markdown table with its notes below, without the title."""
        rules = ["---" if column.style is Style.TEXT else "---:" for column in self.columns]
        cells = [[column.title for column in self.columns], rules, *self.texts()]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
        return "\n".join([*lines, *(f"\n{plain(note)}" for note in self.notes)]) + "\n"

    def rich(self) -> Any:
        """A `rich` renderable."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(title=Text(plain(self.title)), title_justify="left")
        for column in self.columns:
            drawn.add_column(
                Text(column.title), justify="left" if column.style is Style.TEXT else "right", overflow="fold"
            )
        for line in self.texts():
            drawn.add_row(*(Text(cell) for cell in line))
        return Group(drawn, *(Text(plain(note)) for note in self.notes))


def comparison_table(
    results: Mapping[str, ScoreSummary],
    differences: Mapping[tuple[str, str], Comparison] | None = None,
    title: str = "Scores on held-out tasks",
) -> Table:
    """One row a result (floors first), each with what must stand beside a score.

    `differences[(after, before)]` adds, in the row of `after`, its paired gain over `before`.
    """
    differences = differences or {}
    against = list(dict.fromkeys(before for _, before in differences))
    order = [name for name in FLOORS if name in results] + [name for name in results if name not in FLOORS]
    columns = (
        Column("name", "agent"),
        Column("score", "score", Style.INTERVAL),
        Column("write_tasks", "write tasks only", Style.INTERVAL),
        Column("no_write_tasks", "no write needed", Style.INTERVAL),
        Column("pass_hat_n", "pass^n", Style.INTERVAL),
        Column("n", "n", Style.COUNT),
        Column("score_faults_failed", "faults as failures", Style.INTERVAL),
        Column("invalid", "invalid", Style.COUNT),
        *(Column(f"minus_{before}", f"− {_label(before)}", Style.DIFFERENCE) for before in against),
    )
    rows = tuple(_result_row(name, results[name], differences) for name in order)
    notes = [f"{_label(name)}: {reason}" for name in order for reason in results[name].reasons]
    for (after, before), comparison in differences.items():
        notes += [f"{_label(after)} − {_label(before)}: {warning}" for warning in comparison.warnings]
    return Table(title, columns, rows, tuple(notes))


def difference_table(comparisons: Mapping[str, Comparison], title: str = "Paired differences by task") -> Table:
    """One row a comparison, with Holm-corrected p-values over all of them."""
    corrected = holm({name: comparison.difference.p for name, comparison in comparisons.items()})
    columns = (
        Column("name", "difference"),
        Column("difference", "mean [95 %]", Style.DIFFERENCE),
        Column("n", "tasks", Style.COUNT),
        Column("p_holm", "p (Holm)", Style.P_VALUE),
        Column("above_zero", "above zero"),
    )
    rows = tuple(
        {
            "name": _label(name),
            "difference": comparison.difference,
            "n": comparison.difference.n,
            "p_holm": corrected[name],
            "above_zero": "yes" if comparison.difference.above_zero else "no",
        }
        for name, comparison in comparisons.items()
    )
    notes = tuple(f"{_label(name)}: {warning}" for name, c in comparisons.items() for warning in c.warnings)
    return Table(title, columns, rows, notes)


def pass_table(summary: ScoreSummary, title: str = "Repeated trials") -> Table:
    """pass^k and pass@k for every k that all tasks have trials for."""
    columns = (
        Column("k", "k", Style.COUNT),
        Column("pass_hat", "pass^k", Style.INTERVAL),
        Column("pass_at", "pass@k", Style.INTERVAL),
    )
    rows = tuple({"k": k, "pass_hat": v, "pass_at": summary.pass_at[k]} for k, v in summary.pass_hat.items())
    return Table(title, columns, rows)


def family_table(summary: ScoreSummary, title: str = "By intent family") -> Table:
    """Mean reward a family, with the number of its tasks."""
    columns = (
        Column("family", "family"),
        Column("tasks", "tasks", Style.COUNT),
        Column("score", "score", Style.INTERVAL),
    )
    rows = tuple({"family": name, "tasks": score.n, "score": score} for name, score in summary.families.items())
    return Table(title, columns, rows)


def ends_table(summary: ScoreSummary, title: str = "How episodes ended") -> Table:
    """End reasons, with whether such an episode counts."""
    columns = (
        Column("reason", "end"),
        Column("episodes", "episodes", Style.COUNT),
        Column("share", "share", Style.PERCENT),
        Column("counts", "counts"),
    )
    rows = tuple(
        {
            "reason": reason,
            "episodes": n,
            "share": n / summary.done,
            "counts": "no" if reason in summary.faults else "yes",
        }
        for reason, n in summary.ends.items()
    )
    return Table(title, columns, rows)


def behaviour_table(results: Mapping[str, ScoreSummary], title: str = "Behaviour") -> Table:
    """One row a metric, one column a result: turns, tokens, and how the agents went about it."""
    merged = {name: {**summary.usage, **summary.behaviour.to_json()} for name, summary in results.items()}
    keys = list(dict.fromkeys(key for metrics in merged.values() for key in metrics))
    columns = (Column("metric", "metric"), *(Column(name, _label(name), Style.DECIMAL) for name in results))
    rows = tuple({"metric": _label(key), **{name: merged[name].get(key) for name in results}} for key in keys)
    return Table(title, columns, rows)


def _result_row(
    name: str, summary: ScoreSummary, differences: Mapping[tuple[str, str], Comparison]
) -> Mapping[str, Any]:
    trials = summary.trials[0]
    gains = {f"minus_{before}": c.difference for (after, before), c in differences.items() if after == name}
    return {
        "name": _label(name) + ("" if summary.result == "ok" else f" ({summary.result})"),
        "score": summary.score,
        "write_tasks": summary.write_tasks,
        "no_write_tasks": summary.no_write_tasks,
        "pass_hat_n": summary.pass_hat.get(trials),
        "n": trials,
        "score_faults_failed": summary.score_faults_failed,
        "invalid": summary.done - summary.valid,
        **gains,
    }


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any, style: Style) -> str:
    if value is None:
        return NOTHING
    match style:
        case Style.INTERVAL | Style.DIFFERENCE:
            return interval(value, signed=style is Style.DIFFERENCE)
        case Style.PERCENT:
            return percent(value)
        case Style.DECIMAL:
            return decimal(value)
        case Style.COUNT:
            return f"{value:,}"
        case Style.P_VALUE:
            return "< 0.001" if value < 0.001 else decimal(value, 3)
        case _:
            return plain(str(value))


def _raw(value: Any) -> Any:
    return value.to_json() if isinstance(value, (Interval, Difference)) else value


def draw(tables: Sequence[Table], console: Any) -> None:
    """Print tables on a `rich` console, with an empty line between."""
    for i, table in enumerate(tables):
        if i:
            console.print()
        console.print(table.rich())
