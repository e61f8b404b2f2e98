"""`muarl eval`, `rollout` and `rl-train` on TAU2's sets: bases, outputs, official files, checkouts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import FakeOpenAI, Running

from muarl_cli.benchmarks.checkouts import python_of, root_of, use_checkouts
from muarl_cli.benchmarks.tau2 import tau2_scenario
from muarl_cli.cli.app import main
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Users
from muarl_cli.pipeline.rollout import chosen
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve
from muarl_cli.worlds.scenario import outputs_count

pytest.importorskip("inspect_evals", reason="the extra `tau2` is not installed")


def evaluate(capfd: pytest.CaptureFixture[str], out: Path, *more: str) -> dict[str, Any]:
    common = ("eval", "--bench", "tau2", "--trials", "1", "--no-floors", "bootstrap=200", "--out", str(out), "--json")
    assert main([*common, *more]) == 0
    return dict(json.loads(capfd.readouterr().out))


def test_what_must_be_said_counts_in_an_evaluation_unless_it_is_dropped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    agent = ("--domain", "airline", "--agent", "do-nothing")
    checked = evaluate(capfd, tmp_path / "checked", *agent)
    dropped = evaluate(capfd, tmp_path / "dropped", *agent, "--outputs", "drop")
    assert checked["scores"]["do-nothing"]["mean"] == pytest.approx(19 / 50)
    assert dropped["scores"]["do-nothing"]["mean"] == pytest.approx(20 / 50)


def test_telecom_is_reported_with_the_share_of_its_criteria_and_a_file_for_the_official_tool(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--domain", "telecom", "--split", "small", "--agent", "gold-replay")
    result = evaluate(capfd, tmp_path / "run", *arguments)
    assert result["scores"]["gold-replay"]["mean"] == 1.0
    official = result["official"]["tau2:telecom"]
    assert (official["task_completion_rate"], official["pass_1"], official["unjudged"]) == (1.0, 1.0, 0)
    assert "inspect-evals" in official["revision"]["package"]
    (name,) = result["official_files"]
    file = json.loads((tmp_path / "run" / "official" / name).read_text())
    assert len(file["simulations"]) == len(file["tasks"]) == 20
    assert {run["task_id"] for run in file["simulations"]} == {task["id"] for task in file["tasks"]}
    assert {run["termination_reason"] for run in file["simulations"]} == {"user_stop"}
    assert file["info"]["environment_info"]["domain_name"] == "telecom"
    users = [c for run in file["simulations"] for m in run["messages"] for c in m.get("tool_calls") or ()]
    assert {call["requestor"] for call in users} == {"user", "assistant"}


def test_idling_in_telecom_meets_some_criteria_and_solves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(capfd, tmp_path / "run", "--domain", "telecom", "--agent", "do-nothing")
    assert result["scores"]["do-nothing"]["mean"] == 0.0
    assert 0.0 < result["official"]["tau2:telecom"]["task_completion_rate"] < 0.2


@pytest.mark.parametrize("domain", ["retail", "airline", "telecom"])
def test_training_sets_drop_what_must_be_said_and_keep_the_tasks_identity(domain: str) -> None:
    tasks = [f"tasks=[tau2:{domain}:train]", "user.model=m"]
    training = resolve(Stage.RL_TRAIN, overrides=tasks).settings
    scoring = resolve(Stage.EVAL, overrides=[*tasks, "agent=gold-replay"]).settings
    dropped, kept = chosen(training, training.tasks), chosen(scoring, scoring.tasks)
    assert len(dropped) == len(kept) == {"retail": 74, "airline": 30, "telecom": 74}[domain]
    assert not any(outputs_count(task) for _, task in dropped)
    assert all(outputs_count(task) for _, task in kept)
    assert [t.task_hash for _, t in dropped] == [t.task_hash for _, t in kept]
    checked = resolve(Stage.RL_TRAIN, overrides=[*tasks, "outputs=check"]).settings
    assert all(outputs_count(task) for _, task in chosen(checked, checked.tasks))


def test_a_checkout_is_named_by_setting_before_environment_and_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("MUARL_TAU1_ROOT", "MUARL_TAU2_PYTHON"):
        monkeypatch.setenv(name, "")
    assert root_of("tau1") is None
    assert python_of("tau2") == sys.executable
    monkeypatch.setenv("MUARL_TAU1_ROOT", str(tmp_path))
    assert root_of("tau1") == tmp_path.resolve()
    (tmp_path / "other").mkdir()
    use_checkouts({"tau1_root": str(tmp_path / "other"), "tau2_root": "", "tau2_python": "/opt/python3.12"})
    assert root_of("tau1") == (tmp_path / "other").resolve()
    assert python_of("tau2") == "/opt/python3.12"
    arguments = ["eval", "--bench", "tau1", "--agent", "do-nothing", "--out", str(tmp_path / "run")]
    assert main([*arguments, "--tau1-root", str(tmp_path / "nowhere")]) == int(ExitCode.MISSING_INPUT)
    assert "is no folder" in capfd.readouterr().err
    assert os.environ["MUARL_TAU1_ROOT"].endswith("nowhere")


def test_a_judge_is_asked_what_tasks_assert_in_words_and_its_absence_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Judge:
        models = ("judge",)

        def message(self, body: Any) -> dict[str, Any]:
            statements = [line for line in body["messages"][1]["content"].splitlines() if line[:1].isdigit()]
            return {"content": json.dumps({"met": [True] * len(statements)})}

    arguments = ("--domain", "airline", "--agent", "gold-replay", "--max-tasks", "4")
    with Running(FakeOpenAI(Judge())) as url:
        evaluate(capfd, tmp_path / "judged", *arguments, "--judge-model", "judge", "--judge-base-url", url)
    evaluate(capfd, tmp_path / "alone", *arguments)
    for name, passed in (("judged", True), ("alone", None)):
        told = [episode.detail["nl_assertions"] for episode in iter_episodes(tmp_path / name)]
        assert len(told) == 4
        assert {row["passed"] for row in told} == {passed}
        assert all(row["count"] for row in told)


def test_a_local_model_cannot_play_a_user_who_has_tools(tmp_path: Path) -> None:
    settings = resolve(Stage.EVAL, overrides=["agent=gold-replay", "user.backend=hf", "user.model=folder"]).settings
    users = Users(settings.user, {}, 0.0, tmp_path)
    with pytest.raises(MuarlError, match="cannot play tau2:telecom") as refused:
        users.of(tau2_scenario("telecom"), 0)
    assert "--user-base-url" in refused.value.next_step
