"""The programs beside the package (measurements, benchmarks, examples) are run by hand: what they import must exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    path for folder in ("docs", "docs/measure", "benchmarks", "examples") for path in (ROOT / folder).glob("*.py")
)


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """What a program takes from this project: modules and the names in them, wherever it imports them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("muarl_cli", "fakes"):
            for name in node.names:
                yield node.module, name.name


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 50 and sum(1 for path in PROGRAMS for _ in imported(path)) > 200


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_program_imports_exists(path: Path) -> None:
    for module, name in imported(path):
        found = importlib.import_module(module)
        whole = hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None
        assert whole, f"{module} has no {name}"
