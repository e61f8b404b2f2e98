"""The report page: one HTML file with everything in it.

Invariant: the page asks for nothing from outside and runs one script, whose hash stands in its content policy; all text
is escaped by the template or, in the viewer, becomes a text node; tables are the `Table` objects the terminal draws.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from muarl_cli.reports.comparison import compare_runs, over_all
from muarl_cli.reports.curves import Chart, bars, learning_curves, legend, svg
from muarl_cli.reports.figures import visible
from muarl_cli.reports.layer_tables import NOT_SCORED, guard_tables, layer_shares, run_layers, run_rules
from muarl_cli.reports.run_tables import (
    ablation_table,
    audit_tables,
    lineage_table,
    named_scores,
    run_table,
    user_table,
)
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import (
    Style,
    Table,
    behaviour_table,
    comparison_table,
    ends_table,
    family_table,
    pass_table,
)
from muarl_cli.reports.viewer import ViewerData, viewer_data


@dataclass(frozen=True)
class Section:
    """One part of the report: tables, and pictures that show some of them."""

    id: str
    title: str
    tables: tuple[Table, ...] = ()
    say: str = ""
    details: tuple[Table, ...] = ()
    """tables that are folded away"""
    charts: tuple[Chart, ...] = ()
    pictures: tuple[str, ...] = ()
    """SVG made here"""

    @property
    def empty(self) -> bool:
        return not (self.say or self.charts or self.pictures or any(table.rows for table in self.tables))


def report_sections(runs: Sequence[RunView]) -> list[Section]:
    """What the report says of these runs, as tables and charts; what there are no data for is left out."""
    played = [run for run in runs if run.own]
    found = [
        Section("runs", "Runs", (run_table(runs),)),
        Section("scores", "Scores", _score_tables(played), details=_score_details(played)),
        _layers(played),
        Section("guard", "Guard at run time", tuple(guard_tables(played))),
        Section("curves", "Learning curves", charts=tuple(learning_curves(runs))),
        Section("ablation", "Ablation", tuple(filter(None, [ablation_table(runs)]))),
        Section("behaviour", "Behaviour", (behaviour_table(named_scores(played)),) if played else ()),
        Section("users", "Users", (user_table(played), *audit_tables(played))),
        Section("lineage", "Lineage", (lineage_table(runs),)),
    ]
    return [section for section in found if not section.empty]


def report_page(runs: Sequence[RunView], title: str = "", tokens: int = 100, episodes: int = 5000) -> str:
    """The page as HTML text. The viewer holds at most `episodes` episodes (0 = all), and token rows of `tokens` of
    them; the tables are always about all."""
    from jinja2 import Environment
    from markupsafe import Markup

    sections = report_sections(runs)
    viewer = viewer_data(runs, tokens, episodes) if any(run.episodes for run in runs) else None
    css, js = _file("style.css"), _file("viewer.js")
    environment = Environment(autoescape=True, trim_blocks=False)
    names = [run.name for run in runs]
    return environment.from_string(_file("page.html.jinja")).render(
        title=visible(title or f"muarl report: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"),
        subtitle=visible(_subtitle(runs)),
        policy=_policy(css, js),
        css=Markup(css),  # our own files, not text from outside
        js=Markup(js),
        sections=[_shown(section) for section in sections],
        viewer=_markup(viewer, sum(len(run.episodes) for run in runs)),
        footer="Made by muarl report. Intervals are 95 % bootstrap intervals over tasks; floors stand first.",
    )


def report_json(runs: Sequence[RunView]) -> dict[str, Any]:
    """The same sections as JSON: rows with full precision, and the text of every cell as the page shows it."""
    return {
        section.id: [
            {"title": table.title, "rows": table.to_json(), "cells": table.texts(), "notes": list(table.notes)}
            for table in (*section.tables, *section.details)
        ]
        for section in report_sections(runs)
    }


def _score_tables(runs: Sequence[RunView]) -> tuple[Table, ...]:
    if not runs:
        return ()
    scores = named_scores(runs)
    table = comparison_table(scores, title="Scores, with floors and both denominators")
    first = replace(table, notes=(*table.notes, *(note for run in runs for note in run.overlap_notes)))
    return (first, *(over_all(compare_runs(before, run)[0]) for before, run in _pairs(runs)))


def _pairs(runs: Sequence[RunView]) -> Iterator[tuple[RunView, RunView]]:
    """Each run with the first one before it that shares a task."""
    for i, run in enumerate(runs):
        mine = run.main.task_means.keys()
        before = next((other for other in runs[:i] if other.main.task_means.keys() & mine), None)
        if before is not None:
            yield before, run


def _score_details(runs: Sequence[RunView]) -> tuple[Table, ...]:
    found = []
    for before, run in _pairs(runs):
        table, _ = compare_runs(before, run)
        if over_all(table) != table:
            found.append(replace(table, title=f"{table.title}, by domain"))
    for run in runs:
        tables = [pass_table(run.main), ends_table(run.main)]
        tables += [family_table(run.main)] if run.main.families else []
        found += [replace(table, title=f"{table.title}: {run.name}") for table in tables if table.rows]
    return tuple(found)


def _layers(runs: Sequence[RunView]) -> Section:
    judged = [run for run in runs if layer_shares(run)]
    if not judged:
        return Section("layers", "Layers", say=NOT_SCORED if runs else "")
    parts = ("pass", "fail", "na")
    pictures = [bars([(f"{run.name}: {name}", part) for name, part in layer_shares(run)], parts) for run in judged]
    say = "Of the valid episodes, the share that passes (green), fails (red), or where it does not apply (grey)."
    rules = run_rules(judged)
    broken = tuple(row for row in rules.rows if row["failed"])
    kept = f"{len(rules.rows) - len(broken)} more were never broken; all are in the table below"
    tables = (run_layers(runs), replace(rules, title="Broken rules", rows=broken, notes=(kept,)))
    return Section("layers", "Layers", tables, say, details=(rules,), pictures=tuple(pictures))


def _shown(section: Section) -> dict[str, Any]:
    """A section as the template takes it: texts made visible, our own SVG as markup."""
    from markupsafe import Markup

    return {
        "id": section.id,
        "title": section.title,
        "say": section.say,
        "tables": [_table(table) for table in section.tables if table.rows],
        "details": [_table(table) for table in section.details if table.rows],
        "charts": [Markup(svg(chart)) for chart in section.charts],
        "legend": [{**line, "name": visible(line["name"])} for line in legend(section.charts)],
        "pictures": [Markup(picture) for picture in section.pictures],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": visible(table.title),
        "columns": [{"title": visible(c.title), "number": c.style is not Style.TEXT} for c in table.columns],
        "rows": [[visible(cell) for cell in row] for row in table.texts()],
        "notes": [visible(note) for note in table.notes],
    }


def _markup(viewer: ViewerData | None, total: int) -> dict[str, Any] | None:
    from markupsafe import Markup

    if viewer is None:
        return None
    # safe by construction: `script_json` leaves no `<`, and base64 has none
    return {
        "index": Markup(viewer.index),
        "chunks": [Markup(chunk) for chunk in viewer.chunks],
        "episodes": viewer.episodes,
        "left_out": total - viewer.episodes,
    }


def _policy(css: str, js: str) -> str:
    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashed(js)}; style-src {hashed(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _subtitle(runs: Sequence[RunView]) -> str:
    from muarl_cli import __version__

    stages = ", ".join(f"{run.name} ({run.stage} {run.run_id})" for run in runs)
    return f"{sum(len(run.episodes) for run in runs):,} episodes of {stages}; muarl {__version__}"


def _file(name: str) -> str:
    return (resources.files("muarl_cli.templates") / "report" / name).read_text(encoding="utf-8")
