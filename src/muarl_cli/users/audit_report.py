"""The audit as tables and as a page of HTML that stands alone.

Invariant: all three forms (terminal, JSON, HTML) are made from the same results; text from a log is never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from muarl_cli.reports.figures import NOTHING, decimal, percent, plain
from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.users.audit import Audit, GroupAudit, Metric, Result
from muarl_cli.users.likeness import Likeness
from muarl_cli.users.spread import Spread

_COLUMNS = (
    Column("id", "id"),
    Column("name", "metric"),
    Column("value", "value"),
    Column("gate", "gate"),
    Column("n", "of"),
    Column("verdict", "gate holds"),
)
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #ddd}td:nth-child(3),td:nth-child(4),td:nth-child(5){font-variant-numeric:tabular-nums}
tr.failed{background:#fde8e8}tr.held td:last-child{color:#176b2c}small{color:#555}"""


def failing(gates: Sequence[str]) -> str:
    """How many of the gates fail, in words."""
    return "1 gate fails" if len(gates) == 1 else f"{len(gates)} gates fail"


def tables(audit: Audit) -> list[Table]:
    """A table for each back-end and persona."""
    return [_table(group) for group in audit.groups]


def _table(group: GroupAudit) -> Table:
    rows = tuple(
        {
            "id": result.metric.id,
            "name": result.metric.name,
            "value": _value(result),
            "gate": _gate(result),
            "n": f"{result.n:g}" if result.n else NOTHING,
            "verdict": _verdict(result),
        }
        for result in group.results
    )
    return Table(_title(group), _COLUMNS, rows, tuple(_notes(group)))


def _title(group: GroupAudit) -> str:
    persona = f", persona {group.persona}" if group.persona else ""
    return f"User {group.backend}{persona}: {group.episodes} episodes, {group.faults} user faults"


def _notes(group: GroupAudit) -> list[str]:
    notes = [f"{r.metric.id}: {r.reason}" for r in group.results if r.reason and r.value is None]
    for result in group.results:
        if result.passed is False:
            notes += [f"{result.metric.id}: {example}" for example in result.examples]
    return notes


def _figure(value: float, metric: Metric) -> str:
    return percent(value) if metric.share else decimal(value)


def _figure_or_nothing(value: float | None, metric: Metric) -> str:
    return NOTHING if value is None else _figure(value, metric)


def _points(value: float | None, metric: Metric) -> str:
    """A difference in the unit of the figures beside it: percentage points for shares."""
    if value is None or not metric.share:
        return decimal(value, 2, signed=True)
    return f"{decimal(100 * value, 1, signed=True)} pp"


def _value(result: Result) -> str:
    return _figure_or_nothing(result.value, result.metric)


def value_text(result: Result) -> str:
    """The value of a metric with a mark where its gate fails."""
    return _value(result) + (" (fails)" if result.passed is False else "")


def _gate(result: Result) -> str:
    if result.gate is None:
        return NOTHING
    return ("≤ " if result.metric.at_most else "≥ ") + _figure(result.gate, result.metric)


def _verdict(result: Result) -> str:
    return {True: "yes", False: "NO", None: NOTHING}[result.passed]


def likeness_tables(found: Sequence[Likeness]) -> list[Table]:
    """A table for each simulated group, with the people beside it."""
    columns = (
        Column("id", "id"),
        Column("name", "metric"),
        Column("simulated", "simulated"),
        Column("people", "people"),
        Column("difference", "difference"),
    )
    tables = []
    for one in found:
        rows = tuple(
            {
                "id": pair.metric.id,
                "name": pair.metric.name,
                "simulated": _figure_or_nothing(pair.simulated, pair.metric),
                "people": _figure_or_nothing(pair.people, pair.metric),
                "difference": _points(pair.difference, pair.metric),
            }
            for pair in one.pairs
        )
        notes = (f"{one.group.episodes} simulated conversations, {one.people.episodes} of people",)
        tables.append(Table(f"User {one.group.backend} against people", columns, rows, notes))
    return tables


def spread_table(spread: Spread) -> Table:
    """One row a user, with the score against it, and the paired differences below."""
    columns = (
        Column("user", "user"),
        Column("agent", "agent"),
        Column("score", "score", Style.INTERVAL),
        Column("left_out", "without partner", Style.COUNT),
        Column("invalid", "invalid", Style.COUNT),
    )
    rows = tuple(
        {
            "user": f"{s.user} ({s.name})",
            "agent": s.agent,
            "score": s.score,
            "left_out": s.left_out,
            "invalid": s.invalid,
        }
        for s in spread.sides
    )
    notes = [f"spread {percent(spread.spread)} over {spread.tasks} tasks, {spread.episodes} paired episodes a user"]
    notes += [
        f"{second} − {first}: {decimal(d.mean, 3)} [{decimal(d.low, 3)}, {decimal(d.high, 3)}], p (Holm) "
        f"{decimal(spread.corrected[first, second], 3)}"
        for (first, second), d in spread.differences.items()
    ]
    return Table("Back-end spread (S16)", columns, rows, (*notes, *spread.warnings))


def _plain_html(table: Table) -> str:
    heads = "".join(f"<th>{escape(column.title)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in table.texts())
    notes = "<br>".join(escape(plain(note)) for note in table.notes)
    title = escape(plain(table.title))
    return f"<h2>{title}</h2><table><tr>{heads}</tr>{rows}</table><small>{notes}</small>"


def html(audit: Audit, source: str, beside: Sequence[Likeness] = ()) -> str:
    """The audit as one page, without anything to fetch; `beside` it, the comparison with people."""
    verdict = failing(audit.failed) if audit.failed else "all gates hold"
    parts = [f"<h1>User audit</h1><p>{escape(plain(source))}: {verdict}</p>"]
    for group, table in zip(audit.groups, tables(audit), strict=True):
        parts.append(f"<h2>{escape(plain(table.title))}</h2><table><tr>")
        parts += [f"<th>{escape(column.title)}</th>" for column in table.columns]
        parts.append("</tr>")
        for result, cells in zip(group.results, table.texts(), strict=True):
            kind = {True: "held", False: "failed", None: ""}[result.passed]
            parts.append(f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
        parts.append("</table><small>" + "<br>".join(escape(plain(note)) for note in table.notes) + "</small>")
    parts += [_plain_html(table) for table in likeness_tables(beside)]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>User audit</title><style>{_STYLE}</style>'
    return f"{head}<body>{''.join(parts)}</body></html>\n"
