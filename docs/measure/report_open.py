"""How long the report of 1,000 episodes takes to open in a real headless browser, and how large it is. Prints JSON.

Needs chromium and chromedriver on PATH. The page is loaded from disk five times; a load counts until the viewer lists
the episodes and shows the first one. Run it as `python docs/measure/report_open.py`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from reports.browser import MISSING, Browser

from muarl_cli.reports.page import report_page
from muarl_cli.reports.run_view import load_runs

WANTED = 1000
READY = "document.documentElement.dataset.ready && document.querySelector('#left h3')"


def measure(root: Path) -> dict[str, object]:
    tasks = ["--tasks", "builtin:retail:dev,builtin:library:dev", "--trials", "3"]
    played = [sys.executable, "-m", "muarl_cli", "eval", "--agent", "hasty", *tasks, "--out", str(root / "run")]
    subprocess.run(played, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (run,) = load_runs([root / "run"])
    made = time.monotonic()
    page = report_page([run])
    made = time.monotonic() - made
    path = root / "report.html"
    path.write_text(page, encoding="utf-8")
    seconds = []
    with Browser(root / "profile") as browser:
        for _ in range(5):
            browser.open(Path("/dev/null"))
            start = time.monotonic()
            browser.open(path)
            browser.until(READY)
            seconds.append(time.monotonic() - start)
        complaints = browser.complaints()
    megabytes = path.stat().st_size / 1e6
    return {
        "episodes": len(run.episodes),
        "open_seconds": {"median": statistics.median(seconds), "slowest": max(seconds)},
        "megabytes": megabytes,
        "megabytes_per_1000": megabytes * WANTED / len(run.episodes),
        "make_seconds": made,
        "complaints": len(complaints),
    }


if __name__ == "__main__":
    if MISSING:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))
