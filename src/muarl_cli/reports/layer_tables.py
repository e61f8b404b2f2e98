"""Tables of the five layers: one row a result, and one row a rule that had an opportunity.

Numbers come from `scoring.layer_summary` unchanged, so that terminal, JSON and report agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muarl_cli.reports.tables import Column, Style, Table
from muarl_cli.scoring.findings import Layer


def layer_table(
    results: Mapping[str, Mapping[str, Any]], title: str = "Layers (pass rate where there was anything to judge)"
) -> Table:
    """One row a result: success, clean and corrupt success, and the five layers."""
    columns = (
        Column("name", "result"),
        Column("success", "success", Style.INTERVAL),
        Column("clean_success", "clean success", Style.INTERVAL),
        Column("corrupt_success", "corrupt success", Style.INTERVAL),
        *(Column(layer.value, layer.value, Style.INTERVAL) for layer in Layer if layer is not Layer.OUTCOME),
        Column("safety_events", "safety events", Style.COUNT),
    )
    rows = tuple(
        {
            "name": name.replace("_", " "),
            **{key: summary[key] for key in ("success", "clean_success", "corrupt_success")},
            **{layer.value: summary["layers"][layer.value]["rate"] for layer in Layer},
            "safety_events": summary["safety"]["events"],
        }
        for name, summary in results.items()
    )
    return Table(title, columns, rows)


def rule_table(results: Mapping[str, Mapping[str, Any]], title: str = "Rules, by opportunity") -> Table:
    """One row a result and rule with at least one opportunity."""
    columns = (
        Column("name", "result"),
        Column("rule", "rule"),
        Column("layer", "layer"),
        Column("opportunities", "opportunities", Style.COUNT),
        Column("failed", "failed", Style.COUNT),
        Column("share", "share failed", Style.PERCENT),
    )
    rows = tuple(
        {
            "name": name.replace("_", " "),
            "rule": rule,
            **{key: entry[key] for key in ("layer", "opportunities", "failed")},
            "share": entry["failed"] / entry["opportunities"],
        }
        for name, summary in results.items()
        for rule, entry in summary["rules"].items()
        if entry["opportunities"]
    )
    return Table(title, columns, rows)
