"""Stages whose user is served: the address is probed first, patience is a setting, faults show in the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.brains import Says
from fakes.openai_server import FakeOpenAI, Running, Troubles
from fakes.wording import Rewords

from muarl_cli.cli.console import Talk
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import evaluate, rollout, synth_coldstart
from muarl_cli.pipeline.play import replaced_code
from muarl_cli.records.log import iter_episodes
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.resolve import resolve

SMALL = ("agent=careful", "tasks=builtin:retail:dev", "max_tasks=4", "in_flight=4")


def _run(stage: Stage, module: Any, out: Path, *settings: str) -> dict[str, Any]:
    found: dict[str, Any] = module.run(resolve(stage, overrides=settings, environ={}).settings, out, Talk(json=True))
    return found


def _served(url: str, model: str = "m") -> list[str]:
    return ["user.backend=llm", f"user.model={model}", f"user.base_url={url}"]


def _rollout(out: Path, url: str, *settings: str, model: str = "m") -> dict[str, Any]:
    return _run(Stage.ROLLOUT, rollout, out, *SMALL, "group=1", *_served(url, model), *settings)


def test_a_model_that_is_not_served_stops_the_run_before_its_first_episode(tmp_path: Path) -> None:
    fake = FakeOpenAI(Rewords())
    with Running(fake) as url, pytest.raises(MuarlError, match="does not serve 'gpt-4o'") as refused:
        _rollout(tmp_path, url, model="gpt-4o")
    assert refused.value.code is ExitCode.UNAVAILABLE
    assert fake.count == 0 and list(iter_episodes(tmp_path)) == []


def test_a_missing_key_names_the_users_own_flag_and_stops_an_evaluation_before_its_floors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    served = ["user.backend=llm", "user.model=gpt-4o"]
    with pytest.raises(MuarlError, match="no key for api") as refused:
        _run(Stage.EVAL, evaluate, tmp_path, *SMALL, "trials=1", *served)
    error = refused.value
    assert (error.code, error.where) == (ExitCode.AUTH, "the address of gpt-4o")
    assert "--user-base-url" in error.next_step and " --base-url" not in error.next_step
    assert list(iter_episodes(tmp_path)) == [], "no floor was played for a run that cannot be finished"
    with pytest.raises(MuarlError, match="no usable base URL") as refused:
        _run(Stage.EVAL, evaluate, tmp_path, *SMALL, "trials=1", *served, "user.base_url=ftp://x")
    assert refused.value.where == "--user-base-url"


def test_an_address_that_does_not_answer_stops_every_stage_that_talks_to_it(tmp_path: Path) -> None:
    with Running(FakeOpenAI(Rewords())) as url:
        pass
    stages = {
        Stage.ROLLOUT: (rollout, [*SMALL, "group=1", *_served(url)]),
        Stage.EVAL: (evaluate, [*SMALL, "trials=1", "floors=false", *_served(url)]),
        Stage.SYNTH_COLDSTART: (
            synth_coldstart,
            ["scenarios=1", "count=2", "teacher.model=m", f"teacher.base_url={url}"],
        ),
    }
    for stage, (module, settings) in stages.items():
        with pytest.raises(MuarlError, match="does not answer"):
            _run(stage, module, tmp_path / stage.value, *settings)


def test_how_long_a_reply_is_waited_for_is_a_setting(tmp_path: Path) -> None:
    """Two of the first requests never get an answer: with little patience they are asked again, and all is well."""
    with Running(FakeOpenAI(Rewords(), script=["hang", "hang", ""])) as url:
        found = _rollout(tmp_path, url, "user.timeout=1")
    assert found["exit_code"] == ExitCode.OK
    assert all(float(e.volatile["seconds"]) < 30 for e in iter_episodes(tmp_path))


def test_a_run_whose_every_episode_is_a_user_fault_finished_with_faults(tmp_path: Path) -> None:
    with Running(FakeOpenAI(Says(""))) as url:
        silent = ["user.fallback=none", *_served(url)]
        found = _run(Stage.ROLLOUT, rollout, tmp_path / "r", *SMALL, "group=1", *silent)
        scored = _run(Stage.EVAL, evaluate, tmp_path / "e", *SMALL, "trials=1", "floors=false", *silent)
    assert {e.end.reason.value for e in iter_episodes(tmp_path / "r")} == {"user_fault"}
    assert found["exit_code"] == scored["exit_code"] == ExitCode.PARTIAL


def test_the_same_command_again_mends_the_faults_and_the_exit_code(tmp_path: Path) -> None:
    fake = FakeOpenAI(Rewords(), script=["empty"] * 12)
    with Running(fake) as url:
        first = _rollout(tmp_path, url, "user.fallback=none")
        again = _rollout(tmp_path, url, "user.fallback=none")
    assert (first["exit_code"], again["exit_code"]) == (ExitCode.PARTIAL, ExitCode.OK)


@pytest.mark.parametrize(("faults", "code"), [(0, ExitCode.OK), (5, ExitCode.OK), (6, ExitCode.PARTIAL)])
def test_where_invalid_episodes_are_replaced_only_many_of_them_show_in_the_exit_code(faults: int, code: int) -> None:
    assert replaced_code(faults, 100) == code


def test_a_cold_start_with_many_faults_says_so_and_finishes(tmp_path: Path) -> None:
    """A conversation that died is held once more; half of the replies missing is too much for some all the same."""
    with Running(FakeOpenAI(Rewords(), troubles=Troubles(shares={"empty": 0.5}))) as url:
        found = _run(
            Stage.SYNTH_COLDSTART,
            synth_coldstart,
            tmp_path,
            "scenarios=1",
            "count=4",
            "max_attempts=20",
            "teacher.agent=careful",
            "in_flight=1",
            "user.fallback=none",
            *_served(url),
        )
    assert found["accepted"] == 4
    assert found["faults"] > 0.05 * found["held"]
    assert found["exit_code"] == ExitCode.PARTIAL


def test_a_cold_start_mends_passing_faults(tmp_path: Path) -> None:
    with Running(FakeOpenAI(Rewords(), script=["empty"] * 9)) as url:
        few = ["scenarios=1", "count=4", "teacher.agent=careful", "in_flight=1", "user.fallback=none"]
        found = _run(Stage.SYNTH_COLDSTART, synth_coldstart, tmp_path, *few, *_served(url))
    assert (found["accepted"], found["faults"], found["exit_code"]) == (4, 0, ExitCode.OK)


def test_the_token_budgets_of_a_turn_and_of_an_episode_are_settings_that_are_kept(tmp_path: Path) -> None:
    fake = FakeOpenAI(Says("let me have a look at that for you"))

    def played(name: str, *settings: str) -> list[str]:
        own = ["agent=policy", "model=m", f"base_url={url}", "tasks=builtin:retail:dev", "max_tasks=2", "group=1"]
        _run(Stage.ROLLOUT, rollout, tmp_path / name, *own, *settings)
        return [f"{e.end.reason.value} {e.end.detail}" for e in iter_episodes(tmp_path / name)]

    with Running(fake) as url:
        free = played("free", "limits.max_turn_tokens=333")
        assert {request["body"]["max_tokens"] for request in fake.requests} == {333}
        bound = played("bound", "limits.max_agent_tokens=20")
    assert all("tokens" not in end for end in free)
    assert bound == ["limit_agent 27 agent tokens"] * 2, (
        "nine words a turn: the turn that crosses the budget is the last"
    )
