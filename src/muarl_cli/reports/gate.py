"""The gate: a run passes or it does not, check by check, for a CI job.

Invariant: what cannot be measured fails its check; an unfinished or invalid run fails whatever its figures are.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any
from xml.etree import ElementTree

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.reports.comparison import PAIRED, verdict, warnings
from muarl_cli.reports.figures import decimal, interval, plain
from muarl_cli.reports.measures import Measure, measures
from muarl_cli.reports.run_view import RunView
from muarl_cli.reports.tables import Column, Table
from muarl_cli.scoring.statistics import paired_difference

_BOUND = re.compile(r"([a-z][a-z0-9_]*)=(-?\d+(?:\.\d+)?(?:[eE]-?\d+)?)")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Bound:
    """`name >= value` (a minimum) or `name <= value` (a maximum)."""

    name: str
    value: float
    minimum: bool

    @property
    def text(self) -> str:
        return f"{self.name} {'>=' if self.minimum else '<='} {self.value:g}"


@dataclass(frozen=True)
class Check:
    """One check and how it went. `figure` is what was measured, as written everywhere."""

    name: str
    figure: str
    value: float | None
    passed: bool
    why: str = ""


def parse_bound(text: str, minimum: bool) -> Bound:
    """`clean_success=0.6`; raises `MuarlError` for any other form."""
    found = _BOUND.fullmatch(text.strip())
    if not found:
        raise MuarlError(
            f"{text!r} is no bound",
            where="--min" if minimum else "--max",
            next_step="write name=number, for example clean_success=0.6 or safety_events=0",
            code=ExitCode.USAGE,
        )
    return Bound(found.group(1), float(found.group(2)), minimum)


def check_run(
    run: RunView,
    bounds: Sequence[Bound],
    baseline: RunView | None = None,
    paired: bool = False,
) -> list[Check]:
    """All checks. With a baseline, each bounded measure (or the score) must not have become worse, which is lower for a
    minimum and higher for a maximum: paired by task, the interval of the difference must not lie on the wrong side of
    zero; unpaired (and for counts, which have no tasks), the figure itself must not.

    Raises `MuarlError` for a measure that no run has.
    """
    found = measures(run)
    for bound in bounds:
        if bound.name not in found:
            near = get_close_matches(bound.name, found, n=1)
            raise MuarlError(
                f"there is no measure {bound.name!r}",
                next_step=(f"did you mean {near[0]!r}? " if near else "") + f"Measures: {', '.join(sorted(found))}",
                code=ExitCode.USAGE,
            )
    checks = [_state(run), *(_bounded(found[bound.name], bound) for bound in bounds)]
    if baseline is not None:
        other = measures(baseline)
        wanted = dict.fromkeys((bound.name, bound.minimum) for bound in bounds) or {("score", True): None}
        for name, more_is_better in wanted:
            pair = found[name], other.get(name), more_is_better
            check = _paired(*pair, run) if paired and name in PAIRED else _unpaired(*pair)
            both = not more_is_better and (name, True) in wanted
            checks.append(replace(check, name=f"{check.name} (as a maximum)") if both else check)
    return checks


def gate_table(checks: Sequence[Check], run: RunView, baseline: RunView | None = None) -> Table:
    """The checks as one table, with the warnings of the comparison below it."""
    columns = (Column("check", "check"), Column("figure", "measured"), Column("result", "result"), Column("why", "why"))
    rows = tuple(
        {"check": c.name, "figure": c.figure, "result": "pass" if c.passed else "FAIL", "why": c.why, "value": c.value}
        for c in checks
    )
    notes = [f"warning: {line}" for line in warnings(baseline, run)] if baseline is not None else []
    failed = sum(not c.passed for c in checks)
    title = f"{run.name}: {f'{failed} of {len(checks)} checks failed' if failed else 'all checks passed'}"
    return Table(title, columns, rows, tuple(notes))


def junit(checks: Sequence[Check], run: RunView) -> bytes:
    """The checks as JUnit XML, a test case each."""
    failed = str(sum(not c.passed for c in checks))
    counts = {"tests": str(len(checks)), "failures": failed, "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(f"muarl gate {run.name}"), **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "muarl.gate", "name": _xml(check.name)})
        if not check.passed:
            said = _xml(f"measured {check.figure}" + (f": {check.why}" if check.why else ""))
            ElementTree.SubElement(case, "failure", {"message": said, "type": "gate"}).text = said
        ElementTree.SubElement(case, "system-out").text = _xml(check.figure)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def markdown(table: Table) -> str:
    """For a job summary: a heading, the table, the warnings. Text from outside cannot open HTML or links in it."""
    safe = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "&#96;"}

    def escaped(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return "".join(safe.get(char, char) for char in plain(value)).replace("](", "]\\(").replace("![", "!\\[")

    rows = tuple({key: escaped(value) for key, value in row.items()} for row in table.rows)
    notes = tuple(escaped(note) for note in table.notes)
    return f"### {escaped(table.title)}\n\n{Table(table.title, table.columns, rows, notes).markdown()}"


def _state(run: RunView) -> Check:
    result, reasons = run.main.result, list(run.main.reasons) if run.main.result != "ok" else []
    if run.settings and run.summary is None:
        result, reasons = "unfinished", ["the run has no summary: it is still running, or was stopped", *reasons]
    return Check("the run is complete", result, None, result == "ok", "; ".join(reasons))


def _bounded(measure: Measure, bound: Bound) -> Check:
    figure = _figure(measure)
    if measure.value is None:
        return Check(bound.text, figure, None, False, "could not be measured")
    holds = (operator.ge if bound.minimum else operator.le)(measure.value, bound.value)
    return Check(bound.text, figure, measure.value, bool(holds))


def _paired(measure: Measure, other: Measure | None, more_is_better: bool, run: RunView) -> Check:
    name = f"{measure.name} not worse than the baseline"
    if other is None or not measure.by_task.keys() & other.by_task.keys():
        return Check(name, decimal(None), None, False, "no task has it on both sides")
    gain = paired_difference(other.by_task, measure.by_task, resamples=run.resamples, seed=run.seed)
    worse = gain.high < 0 if more_is_better else gain.low > 0
    why = f"paired over {gain.n} tasks: {verdict(gain)}"
    return Check(name, interval(gain, signed=True), gain.mean, not worse, why)


def _unpaired(measure: Measure, other: Measure | None, more_is_better: bool) -> Check:
    name = f"{measure.name} not worse than the baseline"
    if measure.value is None or other is None or other.value is None:
        return Check(name, decimal(None), None, False, "could not be measured on both sides")
    gain = measure.value - other.value
    worse = gain < 0 if more_is_better else gain > 0
    return Check(name, decimal(gain, signed=True), gain, not worse, f"baseline {_figure(other)}")


def _figure(measure: Measure) -> str:
    if measure.count and measure.value is not None:
        return f"{measure.value:,.0f}"
    return interval(measure.interval) if measure.interval else decimal(measure.value)


def _xml(text: str) -> str:
    return _NO_XML.sub("", text)
