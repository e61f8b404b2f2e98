"""`muarl status`: how far a run is, while it runs or after it died.

Examples:
  muarl status runs/eval
  muarl status runs/eval --json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muarl_cli.cli import options as o


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run folder")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.reports.run_view import load_run
    from muarl_cli.reports.status import status_of

    talk = Talk(json=json)
    with talk.data_only():
        view = load_run(run)
        found = status_of(view, _plan(view))
    if json:
        talk.result(found.to_json())
    else:
        for line in _lines(found):
            talk.show(line)
    return 0


def _plan(view: Any) -> Any:
    """What the stage of a run plans to do; None where the plan cannot be made here."""
    from importlib import import_module

    from muarl_cli.cli.launch import MODULES
    from muarl_cli.settings.bases import Stage
    from muarl_cli.settings.models import MODELS

    try:
        stage = Stage(view.stage.replace("-", "_"))
        settings = MODELS[stage].model_validate(view.settings)
        return import_module(f"muarl_cli.pipeline.{MODULES[stage.value]}").plan(settings)
    except Exception:  # settings of another version, a source that is not installed: then there is no plan to show
        return None


def _lines(found: Any) -> list[str]:
    from datetime import UTC, datetime

    from muarl_cli.cli.console import clean
    from muarl_cli.reports.figures import decimal

    whole = f" of {found.planned:,}" if found.planned else ""
    lines = [
        f"{clean(found.run, True)}: {found.stage or 'no stage'} {found.run_id}",
        f"state: {found.state}" + (f" ({clean(found.holder, True)})" if found.holder else ""),
        f"episodes: {found.episodes:,}{whole}, {found.valid:,} valid, mean reward {decimal(found.reward, 3)}",
    ]
    if found.floor_episodes:
        lines.append(f"floors: {found.floor_episodes:,} episodes")
    if found.faults:
        lines.append("faults: " + ", ".join(f"{n} {clean(reason, True)}" for reason, n in found.faults.items()))
    if found.step is not None:
        figures = [f"{clean(k, True)} {v:.4g}" for k, v in found.last_step.items() if isinstance(v, float)]
        steps = f" of {found.planned_steps:,}" if found.planned_steps else ""
        lines.append(f"step: {found.step:,}{steps}  " + "  ".join(figures[:8]))
    if found.spent_usd is not None:
        lines.append(f"spent: {found.spent_usd:.4f} US dollars, {found.reserved_usd:.4f} reserved")
    if found.torn:
        lines.append(f"log: {found.torn} damaged stretches, owed again when the run is resumed")
    if found.last_write is not None:
        lines.append(f"last record: {datetime.fromtimestamp(found.last_write, UTC):%Y-%m-%d %H:%M:%S} UTC")
    if found.next_step:
        lines.append(f"next: {clean(found.next_step, True)}")
    return lines
