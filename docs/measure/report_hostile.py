"""How many hostile texts become active in the report, in a real headless browser, and in the terminal. Prints JSON.

Every text of a run that comes from outside (messages, tool names and arguments, ids, models, settings, verdicts) is an
attack of the corpus in tests/reports/demo_runs.py; every episode is opened. Run it as `python
docs/measure/report_hostile.py`; needs chromium and chromedriver on PATH.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from reports.browser import MISSING, Browser
from reports.demo_runs import PAYLOADS, hostile_run

from muarl_cli.reports.page import report_page
from muarl_cli.reports.run_view import load_runs

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
REQUESTS = "return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length"
FOREIGN = "return document.querySelectorAll('img, iframe, object, embed, a[href]:not([href^=\"#\"])').length"


def measure(root: Path) -> dict[str, int]:
    folder = hostile_run(root / "run")
    path = root / "report.html"
    path.write_text(report_page(load_runs([folder])), encoding="utf-8")
    with Browser(root / "profile") as browser:
        browser.open(path)
        browser.until("document.documentElement.dataset.ready && document.querySelector('#left h3')")
        opened = 1
        for _ in PAYLOADS[1:]:
            browser.press("t", "t", "s", "s", "j")
            opened += 1
        active = int(browser.run("return window.pwned !== undefined"))
        found = {"requests": browser.run(REQUESTS), "foreign_elements": browser.run(FOREIGN)}
        stopped = len(browser.complaints())
    control = 0
    for words in (["show", str(folder), "--limit", "0"], ["status", str(folder)], ["gate", str(folder)]):
        done = subprocess.run([sys.executable, "-m", "muarl_cli", *words], capture_output=True, text=True, check=False)
        control += len(_CONTROL.findall(done.stdout + done.stderr))
    return {"payloads": len(PAYLOADS), "episodes_opened": opened, "active": active, **found} | {
        "policy_complaints": stopped,
        "control_characters_in_terminal": control,
    }


if __name__ == "__main__":
    if MISSING:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))
