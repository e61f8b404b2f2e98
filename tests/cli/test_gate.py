"""`muarl gate` and `muarl compare` as a CI job calls them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from muarl_cli.cli import app as program
from muarl_cli.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]


def test_a_gate_passes_or_fails_with_its_exit_code_table_and_files(muarl: Any, tmp_path: Path) -> None:
    code, out, _ = muarl("gate", "runs/careful", "--min", "score=0.9", "--max", "fault_share=0.05")
    assert code == 0 and "all checks passed" in out and "score >= 0.9" in out
    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    summary.write_text("before\n")
    files = ["--junit", str(junit), "--markdown", str(summary)]
    words = ["gate", "runs/hasty", "--min", "score=0.9", "--baseline", "runs/careful", "--paired"]
    code, out, _ = muarl(*words, *files)
    assert code == ExitCode.GATE_FAILED and "2 of 3 checks failed" in out
    assert ElementTree.parse(junit).getroot().attrib["failures"] == "2"
    text = summary.read_text()
    assert text.startswith("before\n### hasty") and text.count("FAIL") == 2
    code, out, _ = muarl(*words, "--json")
    document = json.loads(out)
    assert code == ExitCode.GATE_FAILED and document["passed"] is False
    for row in document["checks"]:
        assert row["figure"].replace(">", "&gt;") in text


@pytest.mark.parametrize("words", [["--min", "score"], ["--paired"], ["--min", "scor=1"]])
def test_a_gate_that_asks_for_nothing_sensible_is_an_error_and_no_verdict(words: list[str], muarl: Any) -> None:
    code, out, err = muarl("gate", "runs/careful", *words)
    assert code == ExitCode.USAGE and out == "" and "next: " in err


def test_compare_prints_the_same_cells_as_table_and_json(muarl: Any) -> None:
    code, out, _ = muarl("compare", "runs/careful", "runs/hasty")
    document = json.loads(muarl("compare", "runs/careful", "runs/hasty", "--json")[1])
    assert code == 0 and document["warnings"] == []
    for cell in (cell for row in document["cells"] for cell in row):
        assert cell in out
    assert document["rows"][0]["difference"]["mean"] < 0


def test_the_example_for_ci_is_valid_and_its_commands_run(muarl: Any, tmp_path: Path, monkeypatch: Any) -> None:
    job = yaml.safe_load((ROOT / "examples" / "github_actions_gate.yml").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    summary = tmp_path / "summary.md"
    ran = []
    for step in job["jobs"]["gate"]["steps"]:
        words = shlex.split(step.get("run", "").replace("$GITHUB_STEP_SUMMARY", str(summary)))
        if words and words[0] == "muarl":
            more = ["--max-tasks", "3"] if words[1] == "eval" else []
            assert program.main([*words[1:], *more]) == 0, words
            ran.append(words[1])
    assert ran == ["eval", "eval", "gate", "report"]
    assert (tmp_path / "report.html").exists() and (tmp_path / "gate.xml").exists() and summary.exists()
