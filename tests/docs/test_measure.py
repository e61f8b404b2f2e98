"""The rows of the evidence and the measurements behind them name each other."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "measure.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_every_row_that_is_measured_here_has_its_measurement_and_every_measurement_its_row() -> None:
    rows = [row for page in (ROOT / "docs" / "evidence").glob("*.yaml") for row in yaml.safe_load(page.read_text())]
    named = {row["command"].split()[2] for row in rows if row["command"].startswith("python docs/measure.py ")}
    offered = _run("--help").stdout
    unknown = _run("no-such-measurement")
    assert unknown.returncode == 2 and unknown.stdout == ""
    listed = {word.strip("',()") for word in unknown.stderr.split("choose from")[1].replace("(", " ").split()}
    assert named == listed and all(name in offered.replace("\n", " ") for name in ("kill-any-stage", "test-fast"))


def test_a_measurement_prints_one_json_document() -> None:
    done = _run("tau2-corrupted")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] == found["write_tasks"] == 103
