"""`muarl report` and `muarl ls` as a person uses them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.cli import compare, gate, ls, report, show, status
from muarl_cli.errors import ExitCode

COMMANDS = {"report": report, "show": show, "status": status, "compare": compare, "gate": gate, "ls": ls}
HEAVY = ("torch", "transformers", "numpy", "jinja2", "yaml", "openai", "aiohttp")


def test_a_page_charts_and_json_are_written(muarl: Any, runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "r.html"
    code, out, _ = muarl(
        "report", "runs/careful", "runs/hasty", "-o", str(page), "--plots", str(tmp_path / "c"), "--json"
    )
    document = json.loads(out)
    assert code == 0 and page.stat().st_size == document["bytes"]
    assert document["episodes"] == 64 and {"runs", "scores", "behaviour"} <= set(document["sections"])
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == sorted(document["plots"])


def test_a_folder_among_several_that_is_no_run_is_named_and_left_out(muarl: Any, runs: Path, tmp_path: Path) -> None:
    code, _, err = muarl("report", "runs/careful", str(tmp_path), "-o", str(tmp_path / "r.html"))
    assert code == 0 and "is no run; left out" in err
    code, _, err = muarl("report", str(tmp_path))
    assert code == ExitCode.MISSING_INPUT and "muarl ls" in err


def test_an_unfinished_run_with_a_torn_log_is_reported_as_such(muarl: Any, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "hasty", tmp_path / "cut")
    for name in ("summary.json", "lineage.json"):
        (tmp_path / "cut" / name).unlink()
    with (tmp_path / "cut" / "episodes.jsonl").open("ab") as file:
        file.write(b'{"schema":"muarl.episode/1.0",')
    code, out, _ = muarl("report", str(tmp_path / "cut"), "-o", str(tmp_path / "r.html"), "--json")
    sections = json.loads(out)["sections"]
    assert code == 0 and sections["runs"][0]["rows"][0]["state"] == "not finished"
    assert sections["runs"][0]["notes"] == ["cut: 1 damaged lines passed over"]
    whole = json.loads(muarl("report", "runs/hasty", "-o", str(tmp_path / "w.html"), "--json")[1])["sections"]
    assert sections["scores"][0]["rows"][-1]["write_tasks"] == whole["scores"][0]["rows"][-1]["write_tasks"] is not None
    assert muarl("gate", str(tmp_path / "cut"))[0] == ExitCode.GATE_FAILED


def test_ls_lists_runs_domains_users_and_profiles(muarl: Any) -> None:
    rows = json.loads(muarl("ls", "--json")[1])["runs"]
    assert [(row["run"], row["stage"], row["state"], row["episodes"]) for row in rows] == [
        ("runs/careful", "eval", "finished", 32),
        ("runs/hasty", "eval", "finished", 32),
    ]
    assert "builtin:retail" in muarl("ls", "domains")[1] and "scripted" in muarl("ls", "users")[1]
    assert "paper-8b" in muarl("ls", "profiles")[1] and muarl("ls", "models")[0] == 0
    code, _, err = muarl("ls", "domain")
    assert code == ExitCode.USAGE and "domains" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_shows_an_example_and_the_json_flag(name: str, muarl: Any) -> None:
    code, out, _ = muarl(name, "--help")
    assert code == 0 and f"muarl {name} " in out and "--json" in out
    assert "Examples:" in (COMMANDS[name].__doc__ or "")


def test_ls_and_the_help_import_nothing_heavy(runs: Path) -> None:
    for words in (["ls", "--runs", str(runs)], ["report", "--help"], ["gate", "--help"]):
        code = (
            "import sys\nfrom muarl_cli.cli.app import main\nmain(sys.argv[1:])\n"
            f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        heavy = done.stderr.strip().splitlines()[-1]
        assert heavy == "[]", f"{words}: {heavy}"
