"""The evidence tool on a toy file: figures come from real commands, bounds are checked, nothing else is touched."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muarl_cli.errors import MuarlError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evidence_tool", DOCS / "evidence.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


evidence = _module()

OTHER = """# Another page.
- id: elsewhere
  claim: Stands on another page
  command: |-
    echo '{"n":1}'
  figure: "{n}"
"""

TOY = """# A header that stays.

- id: good
  claim: Two | bars
  command: |-
    echo talk; printf '{"gain":{"mean":0.1,"low":0.02,"high":0.2},\\n "seconds": 12.4}\\n'
  figure: "{gain:signed} in {seconds:.0f} s"
  expect: gain.low > 0 and seconds <= 900
- id: bad
  claim: Misses its bound
  command: |-
    echo '{"share":0.5}'
  figure: "{share:percent}"
  expect: share < 0.1
- id: silent
  claim: Prints nothing
  command: echo nothing here; exit 3
  figure: "{n}"
- id: plain
  claim: Only reported
  command: |-
    echo '{"n":[1,2,3], "hardware":"one toy GPU"}'
  figure: "{len(n)} items"
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of two pages; the first holds what the tests below look at."""
    folder = tmp_path / "docs" / "evidence"
    folder.mkdir(parents=True)
    (folder / "1-toy.yaml").write_text(TOY, encoding="utf-8")
    (folder / "2-other.yaml").write_text(OTHER, encoding="utf-8")
    return folder


def row(path: Path, name: str) -> Any:
    return next(row for row in evidence.load(path) if row.id == name)


def test_a_run_writes_figure_verdict_hardware_and_date(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["good", "--rows", str(rows)]) == 0
    seen = row(rows, "good")
    assert (seen.seen, seen.holds) == ("+0.10 [+0.02, +0.20] in 12 s", True)
    assert "cores" in seen.hardware and len(seen.date) == 10
    assert json.loads(capsys.readouterr().out) == {"id": "good", "seen": seen.seen, "holds": True}
    text = rows.with_suffix(".md").read_text(encoding="utf-8")
    assert "Two \\| bars" in text and text.count("not seen yet") == 4
    assert "## A header that stays\n" in text and "## Another page\n" in text
    assert (rows / "1-toy.yaml").read_text(encoding="utf-8").startswith("# A header that stays.\n")
    assert (rows / "2-other.yaml").read_text(encoding="utf-8") == OTHER


def test_a_missed_bound_is_written_down_and_fails(rows: Path) -> None:
    assert evidence.main(["bad", "--rows", str(rows)]) == 1
    assert (row(rows, "bad").seen, row(rows, "bad").holds) == ("50.0 %", False)
    assert "**no**" in rows.with_suffix(".md").read_text(encoding="utf-8")


def test_a_command_without_json_changes_nothing(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["silent", "--rows", str(rows)]) == 65
    assert (rows / "1-toy.yaml").read_text(encoding="utf-8") == TOY
    assert "exit code 3" in capsys.readouterr().err


def test_all_runs_every_row_and_goes_on_past_a_broken_one(rows: Path) -> None:
    assert evidence.main(["--all", "--rows", str(rows)]) == 1
    assert [r.seen != "" for r in evidence.load(rows)] == [True, True, False, True, True]
    assert (row(rows, "plain").holds, row(rows, "plain").hardware) == (None, "one toy GPU")


def test_a_failing_command_does_not_hold_even_with_a_good_figure(rows: Path) -> None:
    broken = evidence.replace(
        row(rows, "good"), command='echo \'{"gain":{"mean":1,"low":1,"high":1},"seconds":1}\'; exit 2'
    )
    measured = evidence.measure(broken, rows.parent)
    assert measured.holds is False and "exit code 2" in measured.seen


def test_edits_made_during_a_run_stay(rows: Path) -> None:
    measured = evidence.measure(row(rows, "good"), rows.parent)
    page = rows / "1-toy.yaml"
    page.write_text(page.read_text(encoding="utf-8").replace("Only reported", "Edited meanwhile"), encoding="utf-8")
    evidence.record(rows, measured)
    assert row(rows, "plain").claim == "Edited meanwhile" and row(rows, "good").holds is True


def test_saving_twice_changes_nothing(rows: Path) -> None:
    evidence.main(["good", "--rows", str(rows)])
    evidence.main(["--render", "--rows", str(rows)])
    once = [path.read_text(encoding="utf-8") for path in evidence.pages(rows)]
    evidence.main(["--render", "--rows", str(rows)])
    assert [path.read_text(encoding="utf-8") for path in evidence.pages(rows)] == once
    assert sorted(path.name for path in rows.parent.iterdir()) == ["evidence", "evidence.md"]
    assert sorted(path.name for path in rows.iterdir()) == ["1-toy.yaml", "2-other.yaml"]


@pytest.mark.parametrize("names", [["nosuch"], []])
def test_unknown_or_no_row_names_the_rows_there_are(
    rows: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evidence.main([*names, "--rows", str(rows)]) == 64
    assert "good, bad, silent, plain, elsewhere" in capsys.readouterr().err


DOCUMENT = {"a": {"low": 0.5, "do-nothing": 1}, "n": [3, 1], "t": True, "text": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.low > 0 and t", True),
        ("0 < a.low <= 0.4", False),
        ('a["do-nothing"] == 1 or missing', True),
        ("not t", False),
        ("min(n) == n[-1]", True),
        ("abs(-n[0] * 2 + a.low / 0.5 - 1)", 6.0),
        ('text == "x"', True),
    ],
)
def test_bounds_are_evaluated(text: str, value: Any) -> None:
    assert evidence.evaluate(text, DOCUMENT) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('x')",
        "a.low.real.__class__",
        "[x for x in n]",
        "(lambda: 1)()",
        "2 ** 99",
        "'a' * 9",
        "a +",
    ],
)
def test_nothing_but_arithmetic_and_comparison_is_evaluated(text: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        evidence.evaluate(text, DOCUMENT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('talk {not json}\n{"a": 1}\n{"b": 2}\n', {"b": 2}),
        ('talk\n{\n "a": [\n  {"b": 2}\n ]\n}\n', {"a": [{"b": 2}]}),
    ],
)
def test_the_last_document_on_stdout_counts(text: str, value: Any) -> None:
    assert evidence.last_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "- {id: a, claim: c, command: d}",
        "- {id: a, claim: c, command: d, figure: f, extra: 1}",
        "- {id: A b, claim: c, command: d, figure: f}",
        "- {id: a, claim: c, command: d, figure: f}\n- {id: a, claim: c, command: d, figure: f}",
        "- [",
    ],
)
def test_rows_that_are_not_well_formed_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MuarlError):
        evidence.load(tmp_path)


def test_an_id_on_two_pages_is_refused(rows: Path) -> None:
    (rows / "3-again.yaml").write_text(OTHER, encoding="utf-8")
    with pytest.raises(MuarlError, match="two rows share an id"):
        evidence.load(rows)


def test_the_page_in_the_repository_is_the_rendering_of_its_rows() -> None:
    assert evidence.ROWS.with_suffix(".md").read_text(encoding="utf-8") == evidence.render(evidence.ROWS)


def test_every_row_in_the_repository_has_readable_expressions() -> None:
    for row_ in evidence.load(evidence.ROWS):
        holes = evidence._HOLE.findall(row_.figure)
        assert holes, f"{row_.id} shows no figure"
        for text in [path for path, _ in holes] + ([row_.expect] if row_.expect else []):
            with pytest.raises(LookupError):  # well formed and allowed: all it lacks is a document
                evidence.evaluate(text, {})
