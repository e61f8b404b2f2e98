"""`muarl report`: one HTML page with scores, curves, layers and every episode.

Examples:
  muarl report runs/eval -o report.html
  muarl report runs/demo/* -o report.html --plots figures
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muarl_cli.cli import options as o

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders")]


def report(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="the page to write")] = Path("report.html"),
    plots: Annotated[
        Path | None, typer.Option("--plots", help="folder for curves, scores and layers as PNG and SVG")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="heading of the page")] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="episodes whose tokens are put in")] = 100,
    episodes: Annotated[int, typer.Option("--episodes", min=0, help="episodes in the viewer; 0 = all")] = 5000,
    json: o.Json = False,
    debug: o.Debug = False,
) -> int:
    from muarl_cli.cli.console import Talk
    from muarl_cli.records.files import replace_file
    from muarl_cli.reports.page import report_json, report_page
    from muarl_cli.reports.plots import write_plots
    from muarl_cli.reports.run_view import is_run, load_runs

    talk = Talk(json=json)
    with talk.data_only():
        chosen = [path for path in runs if is_run(path)] if len(runs) > 1 else runs
        for path in runs:
            if path not in chosen:
                talk.say(f"{path} is no run; left out")
        views = load_runs(chosen or runs)
        page = report_page(views, title, tokens, episodes).encode("utf-8")
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, page)
        drawn = write_plots(views, plots) if plots is not None else []
        logged = sum(len(view.episodes) for view in views)
        found = {"output": str(output), "bytes": len(page), "episodes": logged, "plots": drawn}
        if json:
            found["sections"] = report_json(views)
    talk.result(found)
    return 0
