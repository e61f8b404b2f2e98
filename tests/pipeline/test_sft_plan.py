"""What `muarl sft --dry-run` says is what the run would do: as many steps, and the same complaints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import sft
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import Sft
from muarl_cli.settings.resolve import resolve


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start of a dozen demonstrations."""
    out = tmp_path_factory.mktemp("shown") / "coldstart"
    assert main(["synth-coldstart", "--profile", "tiny", "scenarios=retail", "count=12", "--out", str(out)]) == 0
    return out


def _settings(shown: Path, *overrides: str) -> Sft:
    resolved = resolve(Stage.SFT, overrides=[f"data={shown}", *overrides], environ={})
    assert isinstance(resolved.settings, Sft)
    return resolved.settings


def test_a_plan_counts_the_steps_that_would_be_taken(shown: Path) -> None:
    plan = sft.plan(_settings(shown, "batch=8", "epochs=3", "eval_share=0.3"))
    assert 0 < plan["held_out"] < plan["episodes"] and plan["episodes"] >= 12
    learned = plan["episodes"] - plan["held_out"]
    assert learned % 8 and plan["steps"] == 3 * math.ceil(learned / 8), "an epoch's last, smaller batch is a step too"
    assert sft.plan(_settings(shown, "epochs=3", "eval_share=0"))["steps"] == 3, "fewer episodes than a batch"
    assert sft.plan(_settings(shown, "batch=8", "epochs=3", "max_steps=4"))["steps"] == 4
    assert sft.plan(_settings(shown, "epochs=3", "max_steps=400"))["steps"] == 3, "the nearer limit counts"


def test_a_plan_says_what_it_cannot_know(shown: Path) -> None:
    plan = sft.plan(_settings(shown, "epochs=0", "stop_after_seconds=60", "max_length=700"))
    assert plan["steps"] is None and plan["stop_after_seconds"] == 60 and "700 tokens" in plan["not_known_yet"]


@pytest.mark.parametrize(
    ("override", "fault"), [("where=reward=7", "no episode passes where='reward=7'"), ("eval_share=0.9999", "held out")]
)
def test_a_plan_for_nothing_fails_as_the_run_does(shown: Path, tmp_path: Path, override: str, fault: str) -> None:
    settings = _settings(shown, override)
    talk: Any = None
    for act in (lambda: sft.plan(settings), lambda: sft.run(settings, tmp_path / "out", talk)):
        with pytest.raises(MuarlError, match=fault) as caught:
            act()
        assert caught.value.code is ExitCode.BAD_DATA and str(shown) in caught.value.where


def test_a_dry_run_without_data_reads_the_newest_cold_start_and_says_so(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sft", "--dry-run"]) == ExitCode.MISSING_INPUT
    assert "there is no cold start under runs/" in capfd.readouterr().err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "coldstart").symlink_to(shown)
    assert main(["sft", "--dry-run", "--json"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["plan"]["steps"] == 2 and "the newest cold start" in said.err
