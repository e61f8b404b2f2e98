"""Plots for papers: files that open, the same bytes twice, and an explained error without matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode
from muarl_cli.reports.plots import write_plots
from muarl_cli.reports.run_view import RunView


def test_every_plot_is_there_as_png_and_svg_and_twice_the_same(runs: list[RunView], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    names = write_plots(runs, tmp_path / "one")
    assert names == ["scores.png", "scores.svg", "layers.png", "layers.svg"]
    assert write_plots(runs, tmp_path / "two") == names
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        if name.endswith(".svg"):
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert data.startswith(b"\x89PNG") and len(data) > 5000


def test_without_matplotlib_the_extra_is_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["report", str(folders["careful"]), "-o", str(tmp_path / "r.html"), "--plots", str(tmp_path / "p")]
    assert main(words) == ExitCode.MISSING_INPUT
    assert "[plots]" in capfd.readouterr().err and not (tmp_path / "p").exists()
