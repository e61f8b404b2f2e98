"""Two finished runs of the tiny domain, and the program called in this process from the folder above them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reports.demo_runs import play

from muarl_cli.cli import app as program


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "runs"
    play(root / "careful", "careful")
    play(root / "hasty", "hasty")
    return root


@pytest.fixture
def muarl(capfd: pytest.CaptureFixture[str], runs: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with the words of a command line: exit code, standard output, standard error."""
    monkeypatch.chdir(runs.parent)
    capfd.readouterr()

    def run(*arguments: str) -> tuple[int, str, str]:
        code = program.main(arguments)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
