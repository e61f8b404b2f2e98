"""One list of rows, shown three ways: the numbers agree, and text from outside is never markup."""

import io
import json

import pytest
from rich.console import Console
from scoring.episode_maker import make_episode

from muarl_cli.conversation.ends import EndReason
from muarl_cli.reports.figures import decimal, interval, percent, plain
from muarl_cli.reports.tables import (
    Column,
    Style,
    Table,
    behaviour_table,
    comparison_table,
    difference_table,
    draw,
    ends_table,
    family_table,
    pass_table,
)
from muarl_cli.scoring.statistics import Interval
from muarl_cli.scoring.summary import ScoreSummary, compare, summarise


def result(rate: int) -> ScoreSummary:
    episodes = [make_episode(f"t{i}", float(i % 10 < rate), r) for i in range(40) for r in range(2)]
    writes = {f"t{i}": i % 3 > 0 for i in range(40)}
    return summarise(episodes, resamples=300, seed=0, writes=writes, families={f"t{i}": f"f{i % 4}" for i in range(40)})


@pytest.fixture(scope="module")
def results() -> dict[str, ScoreSummary]:
    return {"sft": result(5), "rl": result(8), "transfer_only": result(1), "do_nothing": result(0)}


def drawn(table: Table) -> str:
    out = io.StringIO()
    draw([table], Console(file=out, width=250))
    return out.getvalue()


def test_floors_come_first_and_gains_stand_in_their_row(results: dict[str, ScoreSummary]) -> None:
    gain = compare(results["sft"], results["rl"], resamples=300, seed=0)
    table = comparison_table(results, {("rl", "sft"): gain})
    assert [row["name"] for row in table.rows] == ["do nothing", "transfer only", "sft", "rl"]
    rows = dict(zip([row["name"] for row in table.rows], table.to_json(), strict=True))
    assert rows["rl"]["minus_sft"]["mean"] == pytest.approx(0.3)
    assert rows["sft"]["minus_sft"] is None
    assert rows["rl"]["score"] == results["rl"].score.to_json()


def test_terminal_and_markdown_show_the_same_cells(results: dict[str, ScoreSummary]) -> None:
    gain = compare(results["sft"], results["rl"], resamples=300, seed=0)
    tables = [
        comparison_table(results, {("rl", "sft"): gain}),
        difference_table({"rl_minus_sft": gain}),
        pass_table(results["rl"]),
        family_table(results["rl"]),
        ends_table(results["rl"]),
        behaviour_table(results),
    ]
    for table in tables:
        terminal, markdown = drawn(table), table.markdown()
        assert table.rows and table.texts()
        for cell in (cell for line in table.texts() for cell in line):
            assert cell in terminal and cell in markdown
        json.dumps(table.to_json(), allow_nan=False)


def test_intervals_read_as_promised() -> None:
    assert interval(Interval(0.7249, 0.66, 0.78, 50)) == "0.72 [0.66, 0.78]"
    assert interval({"mean": 0.12, "low": -0.001, "high": 0.19}, signed=True) == "+0.12 [+0.00, +0.19]"
    assert (
        interval(None) == interval({"mean": None, "low": None, "high": None}) == decimal(None) == percent(None) == "–"
    )
    assert decimal(-0.001) == "0.00" and percent(0.081) == "8.1 %"


def test_untrusted_text_is_neither_markup_nor_control() -> None:
    evil = "[red]x[/red] \x1b[31m | y"
    table = Table("t", (Column("name", "name"), Column("n", "n", Style.COUNT)), ({"name": evil, "n": 1200},))
    terminal = drawn(table)
    assert "[red]x[/red]" in terminal and "\x1b" not in terminal and "1,200" in terminal
    assert "\\|" in table.markdown() and "\x1b" not in table.markdown()
    assert plain("a\nb\tc") == "a b c"


def test_a_result_that_is_not_ok_says_so_beside_its_name() -> None:
    bad = summarise(
        [make_episode("a", 1.0), make_episode("b", None, reason=EndReason.USER_FAULT)], resamples=100, seed=0
    )
    table = comparison_table({"rl": bad})
    assert table.rows[0]["name"] == "rl (invalid)"
    assert "user_fault" in table.notes[0] and "user_fault" in table.markdown()
