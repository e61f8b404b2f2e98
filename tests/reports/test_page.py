"""The page: self-contained, escaped, and with the numbers that the terminal and the JSON have."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from muarl_cli.reports.page import report_json, report_page, report_sections
from muarl_cli.reports.run_view import RunView, load_runs
from muarl_cli.reports.tables import draw


class Page(HTMLParser):
    """Elements, attributes and texts of a page; what is in script elements, by id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._in: str = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "td":
            self.cells.append("")
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "td":
            self.cells[-1] += data
        elif self._in == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)


@pytest.fixture(scope="module")
def page(runs: list[RunView]) -> str:
    return report_page(runs)


@pytest.fixture(scope="module")
def hostile(folders: dict[str, Path]) -> str:
    return report_page(load_runs([folders["hostile"]]), title="<script>window.pwned=9</script>")


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_the_page_asks_for_nothing_and_runs_only_its_own_script(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    found = Page(text)
    policy = next(a["content"] for t, a in found.elements if t == "meta" and a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for tag, attributes in found.elements:
        assert tag not in {"img", "iframe", "object", "embed", "base", "link"} or attributes.get("href") == "data:,"
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "style", "srcdoc"}]
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    (code,) = [body for attributes, body in found.scripts if "type" not in attributes]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "innerHTML" not in code and "eval(" not in code and "document.write" not in code


def test_hostile_text_stays_text_and_hidden_characters_become_visible(hostile: str) -> None:
    found = Page(hostile)
    kinds = [attributes.get("type") for attributes, _ in found.scripts]
    assert kinds[0] == "application/json" and kinds[-1] is None and set(kinds[1:-1]) == {"text/plain"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", hostile)
    assert "{{ 7*7 }}" in hostile and ">49" not in hostile
    cells = " ".join(found.cells)
    assert "<img src=x onerror=window.pwned=3>" in cells, "shown as it was written"
    index = json.loads(found.scripts[0][1])
    assert "⟨U+202E⟩" in " ".join(entry["task"] for entry in index["episodes"])
    assert len(index["episodes"]) == 14 and "<" not in found.scripts[0][1]


def test_terminal_json_and_page_show_the_same_cells(runs: list[RunView], page: str) -> None:
    out = io.StringIO()
    sections = report_sections(runs)
    tables = [table for section in sections for table in (*section.tables, *section.details) if table.rows]
    draw(tables, Console(file=out, width=4000))
    terminal, cells = out.getvalue(), set(Page(page).cells)
    documents = report_json(runs)
    said = [row for section in documents.values() for table in section for row in table["cells"]]
    written = [line for table in tables for line in table.texts()]
    assert len(tables) > 8 and [line for line in said if line] == written
    for cell in (cell for line in written for cell in line):
        assert cell in terminal and cell in cells
    json.dumps(documents, allow_nan=False)


def test_scores_of_the_page_equal_what_the_stage_wrote(runs: list[RunView]) -> None:
    for run in runs:
        assert run.summary is not None
        for name, score in run.scores.items():
            assert score.to_json() == run.summary["full"][name]


def test_the_summary_needs_no_script(page: str) -> None:
    before = page[: page.index("<script")]
    assert "confirm_before_write" in before and "careful" in before and "<noscript>" in before
    assert "transfer only" in before and "1.00 [" in before


def test_equal_runs_give_equal_bytes(runs: list[RunView], page: str) -> None:
    assert report_page(runs) == page


def test_layers_that_nobody_scored_are_not_passes(folders: dict[str, Path]) -> None:
    from dataclasses import replace

    (run,) = load_runs([folders["careful"]], tasks=False)
    bare = replace(run, verdicts={})
    text = report_page([bare])
    assert "layers: not scored" in text and bare.judged == {}
    verdict = {"layers": {"verdicts": {"outcome": "pass"}}}
    half = replace(run, verdicts={e.episode_id: verdict for e in run.episodes})
    assert all(judged.clean is None and not judged.complete for judged in half.judged.values())


def test_an_ablation_names_what_was_changed(runs: list[RunView]) -> None:
    (table,) = next(section.tables for section in report_sections(runs) if section.id == "ablation")
    assert 'agent: "careful" -> "hasty"' in table.texts()[1][1]


def test_a_score_on_tasks_that_were_trained_on_says_so_in_every_report(runs: list[RunView]) -> None:
    allowed = replace(runs[0], summary={**(runs[0].summary or {}), "overlap": [{"task": "t"}] * 3})
    for shown in ([allowed], [allowed, runs[1]]):
        (table, *_) = next(section for section in report_sections(shown) if section.id == "scores").tables
        assert f"{allowed.name} was scored on 3 tasks that its model was trained on" in table.notes
    assert "trained on" not in "".join(report_sections([runs[0]])[1].tables[0].notes)
