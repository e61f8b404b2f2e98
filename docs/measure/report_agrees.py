"""Whether the numbers of a run agree wherever they are shown: `summary.json`, terminal, JSON and page. Prints JSON.

Plays two scripted agents, then looks for every cell of every table in all three outputs. Run it as
`python docs/measure/report_agrees.py`.
"""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from muarl_cli.reports.page import report_json, report_page, report_sections
from muarl_cli.reports.run_view import load_runs
from muarl_cli.reports.tables import draw


def measure(root: Path) -> dict[str, int]:
    for agent in ("careful", "hasty"):
        words = ["eval", "--agent", agent, "--tasks", "builtin:retail:dev", "--trials", "2", "--out", str(root / agent)]
        played = [sys.executable, "-m", "muarl_cli", *words]
        subprocess.run(played, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = load_runs([root / "careful", root / "hasty"])
    sections = report_sections(runs)
    tables = [table for section in sections for table in (*section.tables, *section.details)]
    out = io.StringIO()
    draw(tables, Console(file=out, width=4000))
    terminal = out.getvalue()
    cells = {html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", report_page(runs))}
    said = {cell for section in report_json(runs).values() for t in section for row in t["cells"] for cell in row}
    written = [cell for table in tables for row in table.texts() for cell in row]
    differ = sum(cell not in terminal or cell not in cells or cell not in said for cell in written)
    scores = [(run, name, score) for run in runs for name, score in run.scores.items()]
    apart = sum(score.to_json() != (run.summary or {})["full"][name] for run, name, score in scores)
    return {"tables": len(tables), "cells": len(written), "cells_that_differ": differ, "scores_that_differ": apart}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))
