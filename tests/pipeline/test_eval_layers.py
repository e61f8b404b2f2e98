"""`muarl eval` puts layers beside the score, the same in summary, verdicts and a later rescore; guard and faults are
settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muarl_cli.cli.app import main


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    return dict(json.loads(capfd.readouterr().out))


def evaluate(capfd: pytest.CaptureFixture[str], out: Path, *more: str) -> dict[str, Any]:
    common = ("eval", "--agent", "hasty", "--max-tasks", "12", "--trials", "1", "--out", str(out), "bootstrap=200")
    return run(capfd, *common, *more)


def test_layers_stand_beside_the_score_and_agree_with_a_rescore(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(capfd, tmp_path / "run")
    differences = result["differences"]
    assert all(row["p"] <= row["p_holm"] <= min(1, 2 * row["p"]) for row in differences.values())
    assert max(row["p_holm"] / row["p"] for row in differences.values()) == pytest.approx(2)
    assert list(result["users"]["scores"]) == ["scripted agenda/1"] and result["users"]["spread"] is None
    layers = result["layers"]
    assert set(layers) == set(result["scores"]) == {"hasty", "do_nothing", "transfer_only"}
    for label, layer in layers.items():
        assert layer["success"]["mean"] == pytest.approx(result["scores"][label]["mean"])
        assert layer["clean_success"]["mean"] <= layer["success"]["mean"]
    assert layers["hasty"]["corrupt_success"]["mean"] > 0
    again = run(capfd, "rescore", str(tmp_path / "run"))["labels"]
    for stage, label in (("eval", "hasty"), ("eval/do-nothing", "do_nothing")):
        assert again[stage]["rules"] == layers[label]["rules"]
        assert again[stage]["layers"]["policy"]["fail"] == layers[label]["layers"]["policy"]["fail"]


def test_guard_and_faults_are_settings_of_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    more = ("--no-floors", "--guard", "--world-injectors", "latency=0.5,tool_5xx=0.5")
    layers = evaluate(capfd, tmp_path / "run", *more)["layers"]["hasty"]
    assert layers["corrupt_success"]["mean"] == 0
    assert layers["behaviour"]["writes_refused_by_guard"] > 0
    assert layers["behaviour"]["writes"] == 0
    assert set(layers["recovery_by_injector"]) == {"latency", "tool_5xx"}
    assert "guard: true" in (tmp_path / "run" / "settings.yaml").read_text()


def test_a_wrong_injector_is_explained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["eval", "--agent", "hasty", "--out", str(tmp_path / "run")]
    assert main([*common, "--world-injectors", "thunder=0.1"]) != 0
    assert "thunder" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
