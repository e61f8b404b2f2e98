"""What `muarl bench` says of benchmarks that are not there, and how environments come to count as there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.benchmarks import environments
from muarl_cli.benchmarks.bfcl_package import open_package
from muarl_cli.benchmarks.environments import STAMP, Environment
from muarl_cli.benchmarks.provider import GoldCount, home
from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.worlds.catalog import load_tasks


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUARL_HOME", str(tmp_path / "home"))
    open_package.cache_clear()


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json"])
    return dict(json.loads(capfd.readouterr().out))


def test_every_benchmark_that_is_missing_says_how_to_get_it(capfd: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in _json(capfd, "bench", "list")["benchmarks"]}
    assert {"bfcl", "acebench", "tool-decathlon"} <= rows.keys()
    for row in rows.values():
        assert row["present"] or (row["missing"] and row["how_to_get"]), row["name"]
    assert rows["bfcl"]["how_to_get"] == ["muarl bench install bfcl"]
    assert "MUARL_ACEBENCH_DIR" in rows["acebench"]["how_to_get"][0]
    assert rows["tool-decathlon"]["how_to_get"][0].startswith("not available: ")


@pytest.mark.parametrize("tasks", ["bfcl:base:v4", "acebench:multi_turn:en"])
def test_task_sets_of_what_is_not_there_are_an_error_with_the_way_out(tasks: str) -> None:
    with pytest.raises(MuarlError) as caught:
        load_tasks([tasks])
    assert caught.value.code == ExitCode.MISSING_INPUT
    assert re.search(r"muarl bench install|git clone", caught.value.next_step)


def test_unknown_names_are_answered_with_the_known_ones(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "install", "bfc"]) == ExitCode.USAGE
    assert "bfcl" in capfd.readouterr().err
    with pytest.raises(MuarlError, match="unknown BFCL category"):
        load_tasks(["bfcl:nothing:v4"])
    with pytest.raises(MuarlError, match="no data revision"):
        load_tasks(["bfcl:base:v5"])


def test_a_check_of_a_benchmark_that_is_not_there_fails_instead_of_passing(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "check", "acebench"]) == ExitCode.MISSING_INPUT
    said = capfd.readouterr().err
    assert "nothing was checked" in said and "git clone" in said


def test_ls_domains_names_every_benchmark_and_server_and_how_to_get_it(capfd: pytest.CaptureFixture[str]) -> None:
    rows = {row["domain"]: row for row in _json(capfd, "ls", "domains")["domains"]}
    for row in _json(capfd, "bench", "list")["benchmarks"]:
        for domain in row["domains"]:
            assert (rows[f"{row['name']}:{domain}"]["installed"] == "yes") == bool(row["present"])
    assert rows["mcp:spreadsheet"]["installed"] == "no: muarl mcp install spreadsheet"
    assert rows["builtin:retail"]["installed"] == "yes"


def test_what_a_person_has_to_get_is_not_installed_but_explained(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "install", "acebench"]) == ExitCode.MISSING_INPUT
    assert "git clone" in capfd.readouterr().err


def test_the_checkout_that_a_run_names_is_the_one_that_is_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["eval", "--bench", "acebench", "--agent", "gold-replay", "--out", str(tmp_path / "run")]
    assert main([*common, "--acebench-dir", str(tmp_path)]) == ExitCode.MISSING_INPUT
    assert f"{tmp_path} is no checkout of ACEBench" in capfd.readouterr().err


def test_a_checkout_that_is_none_is_said_to_be_missing_and_hides_no_other_benchmark(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUARL_ACEBENCH_DIR", str(tmp_path))
    rows = {row["name"]: row for row in _json(capfd, "bench", "list")["benchmarks"]}
    assert rows["acebench"]["missing"] == [f"{tmp_path} is no checkout of ACEBench"] and not rows["acebench"]["present"]
    assert "bfcl" in rows and _json(capfd, "ls", "domains")["domains"]


def test_an_environment_counts_only_when_it_was_finished_with_just_these_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []
    broken = [True]

    def run(command: list[str], name: str) -> None:
        commands.append(list(command))
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        elif broken[0]:
            raise MuarlError("no network", code=ExitCode.UNAVAILABLE)

    monkeypatch.setattr(environments, "_run", run)
    one = Environment("one", ("a==1",), ("b",))
    with pytest.raises(MuarlError):
        one.create(lambda line: None)
    assert one.python.exists() and not one.ready
    broken[0] = False
    one.create(lambda line: None)
    assert one.ready and one.folder.is_relative_to(home())
    done = len(commands)
    one.create(lambda line: None)
    assert len(commands) == done
    assert not Environment("one", ("a==2",), ("b",)).ready
    (one.folder / STAMP).unlink()
    assert not one.ready


def test_a_count_is_as_expected_only_without_unknown_failures_and_with_all_corrupted_ones_failing() -> None:
    assert GoldCount(3, 3, 2, 2).as_expected
    assert GoldCount(3, 2, 2, 2, known_failures=("a",)).as_expected
    assert GoldCount(3, 3, 2, 1, known_unseen=("a",)).as_expected
    assert not GoldCount(3, 3, 2, 1).as_expected
    assert not GoldCount(3, 2, 2, 2, failures=("a",)).as_expected
