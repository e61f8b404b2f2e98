"""Precedence, origins, implications: where a value comes from is never in doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.settings.bases import Stage
from muarl_cli.settings.models import MODELS, Eval, Rollout
from muarl_cli.settings.pages import flatten, leaves, page
from muarl_cli.settings.resolve import Resolved, resolve
from muarl_cli.settings.yamlio import load_text

LAYERS = ("profile", "file", "env", "flag")


def _resolve(stage: Stage, *overrides: str, environ: dict[str, str] | None = None, **more: Any) -> Resolved:
    return resolve(stage, overrides=overrides, environ=environ or {}, **more)


@given(present=st.sets(st.sampled_from(LAYERS)))
def test_the_strongest_layer_wins_and_says_so(present: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("layers")
    values = {name: 1000 + number for number, name in enumerate(LAYERS)}
    (folder / "profile.yaml").write_text(f"rollout: {{in_flight: {values['profile']}}}\n")
    (folder / "file.yaml").write_text(f"in_flight: {values['file']}\n")
    resolved = resolve(
        Stage.ROLLOUT,
        profile_name=str(folder / "profile.yaml") if "profile" in present else "",
        config=folder / "file.yaml" if "file" in present else None,
        environ={"MUARL_ROLLOUT__IN_FLIGHT": str(values["env"])} if "env" in present else {},
        flags={"in_flight": ("--in-flight", values["flag"])} if "flag" in present else {},
    )
    winner = next((name for name in reversed(LAYERS) if name in present), None)
    expected = values[winner] if winner else resolve(Stage.ROLLOUT, environ={}).flat()["in_flight"]
    assert resolved.flat()["in_flight"] == expected
    assert resolved.origins["in_flight"].startswith(winner or "stage page")


@pytest.mark.parametrize("stage", list(Stage))
def test_every_value_has_an_origin(stage: Stage) -> None:
    assert set(_resolve(stage).origins) == set(leaves(MODELS[stage]))


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("name", ["", "tiny", "paper-8b"])
def test_resolved_yaml_read_back_is_the_same_settings(stage: Stage, name: str, tmp_path: Path) -> None:
    first = resolve(stage, profile_name=name, environ={})
    path = tmp_path / "settings.yaml"
    path.write_text(first.yaml())
    again = resolve(stage, config=path, environ={})
    assert again.settings == first.settings
    assert again.hash() == first.hash()


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("grop=4", "group"),
        ("user.modle=x", "user.model"),
        ("max_turns=3", "limits.max_turns"),
        ("user=x", "user.model"),
        ("usr.temperature=1", "user.temperature"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(override: str, hint: str) -> None:
    with pytest.raises(MuarlError) as caught:
        _resolve(Stage.ROLLOUT, override)
    assert hint in caught.value.next_step
    assert caught.value.code is ExitCode.CONFIG


@pytest.mark.parametrize(
    "environ",
    [{"MUARL_ROLOUT__SEED": "1"}, {"MUARL_ROLLOUT__SED": "1"}, {"MUARL_ROLLOUT__USER__MODLE": "x"}],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest(environ: dict[str, str]) -> None:
    with pytest.raises(MuarlError, match="did you mean"):
        _resolve(Stage.ROLLOUT, environ=environ)


def test_variables_of_other_stages_and_of_other_programs_are_left_alone() -> None:
    environ = {"MUARL_EVAL__SEED": "7", "MUARL_PRICES": "x=1/2", "PATH": "/bin"}
    assert _resolve(Stage.ROLLOUT, environ=environ).settings == _resolve(Stage.ROLLOUT).settings


@pytest.mark.parametrize(
    "override",
    ["seed=-1", "group=0", "temperature=2.5", "temperature=.nan", "limits.max_turns=many", "dtype=int8", "seed="],
)
def test_a_value_out_of_bounds_is_refused_with_its_origin(override: str) -> None:
    with pytest.raises(MuarlError) as caught:
        _resolve(Stage.ROLLOUT, override)
    key = override.split("=")[0]
    assert key in caught.value.what and key in caught.value.where


def test_training_that_would_never_take_a_step_is_refused() -> None:
    with pytest.raises(MuarlError, match="never take a step"):
        _resolve(Stage.RL_TRAIN, "epochs=0")
    with pytest.raises(MuarlError, match="never take a step"):
        _resolve(Stage.SFT, "epochs=0")


def test_rl_with_draws_that_have_no_probability_is_refused() -> None:
    with pytest.raises(MuarlError, match="no probability to raise"):
        _resolve(Stage.RL_TRAIN, "temperature=0")
    assert _resolve(Stage.ROLLOUT, "temperature=0") is not None


def test_a_file_may_hold_one_stage_or_a_section_a_stage(tmp_path: Path) -> None:
    flat, sections = tmp_path / "flat.yaml", tmp_path / "sections.yaml"
    flat.write_text("user: {temperature: 0.5}\nlimits.max_turns: 9\n")
    sections.write_text("rollout:\n  user.temperature: 0.5\n  limits: {max_turns: 9}\nsft: {lr: 1e-4}\n")
    one, two = (resolve(Stage.ROLLOUT, config=path, environ={}) for path in (flat, sections))
    assert one.settings == two.settings
    assert isinstance(one.settings, Rollout) and one.settings.limits.max_turns == 9


@pytest.mark.parametrize(
    "secret",
    ["sk-abcdefghijklmnop", "hf_abcdefghijklmnopqrst", "Bearer abcdefghijklmnopqrstuv", "http://me:pass@host/v1"],
)
def test_a_key_in_the_settings_is_refused_and_never_shown(secret: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(f"seed: 1\nuser:\n  base_url: '{secret}'\n")
    attempts: list[dict[str, Any]] = [
        {"config": path},
        {"overrides": [f"user.model={secret}"]},
        {"flags": {"user.model": ("--user-model", secret)}},
        {"environ": {"MUARL_ROLLOUT__USER__MODEL": secret}},
    ]
    for attempt in attempts:
        with pytest.raises(MuarlError, match="key or password") as caught:
            resolve(Stage.ROLLOUT, **{"environ": {}, **attempt})
        assert secret not in str(caught.value)


def test_a_setting_given_by_flag_and_by_name_is_an_error() -> None:
    with pytest.raises(MuarlError, match="given twice"):
        _resolve(Stage.ROLLOUT, "seed=1", flags={"seed": ("--seed", 2)})


def test_a_user_model_implies_an_llm_user_unless_the_backend_is_named_as_strongly() -> None:
    flag = {"user.model": ("--user-model", "gpt-4o")}
    assert _resolve(Stage.RL_TRAIN, flags=flag).flat()["user.backend"] == "llm"
    assert _resolve(Stage.RL_TRAIN, flags=flag, profile_name="tiny").flat()["user.backend"] == "llm"
    both = {**flag, "user.backend": ("--user", "scripted=0.5,llm=0.5")}
    assert _resolve(Stage.RL_TRAIN, flags=both).flat()["user.backend"] == "scripted=0.5,llm=0.5"
    back = {"user.backend": ("--user", "scripted")}
    assert _resolve(Stage.RL_TRAIN, flags=back, profile_name="paper-8b").flat()["user.backend"] == "scripted"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "scripted"),
        (["bench=tau2"], "llm"),
        (["tasks=tau2:retail:test"], "llm"),
        (["bench=tau2", "agent=gold-replay"], "scripted"),
        (["bench=tau2", "user.backend=scripted"], "scripted"),
        (["bench=bfcl"], "scripted"),
        (["bench=acebench"], "llm"),
    ],
)
def test_auto_user_follows_from_tasks_and_agent(overrides: list[str], expected: str) -> None:
    assert _resolve(Stage.EVAL, *overrides).flat()["user.backend"] == expected


def test_named_tasks_replace_the_benchmark_of_a_profile_and_clash_with_one_given_beside_them() -> None:
    settings = _resolve(Stage.EVAL, "tasks=builtin:retail:test", profile_name="paper-8b").settings
    assert isinstance(settings, Eval) and settings.bench == "" and settings.tasks == ["builtin:retail:test"]
    with pytest.raises(MuarlError, match="both given"):
        _resolve(Stage.EVAL, "tasks=builtin:retail:test", "bench=tau2")


def test_a_scripted_teacher_named_by_flag_replaces_the_model_of_a_profile() -> None:
    flat = _resolve(Stage.SYNTH_COLDSTART, "teacher.agent=oracle", profile_name="paper-8b").flat()
    assert flat["teacher.model"] == "" and flat["teacher.agent"] == "oracle"


@pytest.mark.parametrize("backend", ["hf", "replay", "scripted=0.5,hf=0.5"])
def test_a_local_or_replayed_user_needs_to_be_named(backend: str) -> None:
    with pytest.raises(MuarlError, match="needs"):
        _resolve(Stage.ROLLOUT, f"user.backend={backend}")
    assert _resolve(Stage.ROLLOUT, f"user.backend={backend}", "user.model=some/path").flat()["user.backend"] == backend


def test_the_sdk_address_serves_what_has_no_address_of_its_own(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    scripted = _resolve(Stage.EVAL, environ=environ).flat()
    assert scripted["user.base_url"] == "" and scripted["base_url"] == ""
    llm = _resolve(Stage.EVAL, "user.model=gpt-4o", f"model={tmp_path}", environ=environ)
    assert llm.flat()["user.base_url"] == environ["OPENAI_BASE_URL"]
    assert llm.origins["user.base_url"] == "env OPENAI_BASE_URL"
    assert llm.flat()["base_url"] == "", "a checkpoint folder runs in-process"
    served = _resolve(Stage.EVAL, "model=qwen", "user.base_url=http://127.0.0.1:8/v1", environ=environ).flat()
    assert served["base_url"] == environ["OPENAI_BASE_URL"] and served["user.base_url"] == "http://127.0.0.1:8/v1"


def test_the_hash_ignores_how_a_run_is_done_and_sees_what_it_is() -> None:
    plain = _resolve(Stage.RL_TRAIN)
    assert (
        _resolve(Stage.RL_TRAIN, "in_flight=3", "max_usd=1", "user.base_url=http://127.0.0.1:1").hash() == plain.hash()
    )
    assert _resolve(Stage.RL_TRAIN, "group=4").hash() != plain.hash()
    assert _resolve(Stage.RL_TRAIN, "group=8").hash() == plain.hash()


def test_with_value_checks_like_any_other_layer() -> None:
    resolved = _resolve(Stage.EVAL).with_value("model", "runs/x", "newest checkpoint")
    assert resolved.flat()["model"] == "runs/x" and resolved.origins["model"] == "newest checkpoint"
    with pytest.raises(MuarlError):
        resolved.with_value("trials", 0, "test")


@given(st.text(max_size=30))
def test_any_override_text_is_settings_or_a_muarl_error(text: str) -> None:
    try:
        resolve(Stage.ROLLOUT, overrides=[text], environ={})
    except MuarlError as error:
        assert error.lines()


@given(st.text(max_size=60))
def test_any_yaml_text_is_a_value_or_a_muarl_error(text: str) -> None:
    try:
        load_text(text, "file")
    except MuarlError as error:
        assert error.code is ExitCode.CONFIG


def test_settings_of_several_processes_and_adapters_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(MuarlError, match=r"shards\.zero"):
        _resolve(Stage.RL_TRAIN, "shards.offload=true")
    with pytest.raises(MuarlError, match="an adapter needs a model"):
        _resolve(Stage.SFT, "lora.rank=8")
    resolved = _resolve(Stage.SFT, "lora.rank=8", "model=somewhere", "shards.zero=2", "shards.offload=true")
    assert resolved.flat()["shards.offload"] is True


def test_staleness_needs_servers_and_a_correction_for_older_weights() -> None:
    served, weighed = "engines=http://localhost:8000/v1", "importance_cap=2"
    assert _resolve(Stage.RL_TRAIN, "staleness=2", served, weighed).flat()["staleness"] == 2
    with pytest.raises(MuarlError, match=r"needs engines.*muarl serve"):
        _resolve(Stage.RL_TRAIN, "staleness=2", weighed)
    with pytest.raises(MuarlError, match=r"needs engines that are servers"):
        _resolve(Stage.RL_TRAIN, "staleness=2", weighed, "engines=vllm")
    with pytest.raises(MuarlError, match="needs importance_cap"):
        _resolve(Stage.RL_TRAIN, "staleness=2", served)
    assert _resolve(Stage.RL_TRAIN).flat()["staleness"] == 0


@pytest.mark.parametrize("stage", list(Stage))
def test_settings_are_shown_in_the_order_of_their_page(stage: Stage) -> None:
    resolved = resolve(stage, profile_name="tiny", overrides=["seed=7"], environ={})
    assert list(resolved.flat()) == list(flatten(page(stage), MODELS[stage]))
    assert list(resolved.plain()) == list(page(stage))
    assert resolved.plain() == resolved.settings.model_dump(mode="json")


@pytest.mark.parametrize(
    ("stage", "key", "meant"),
    [(Stage.SYNTH_COLDSTART, "judge.model", "judges.models"), (Stage.EVAL, "judges.models", "judge.model")],
)
def test_who_scores_words_and_who_votes_on_demonstrations_are_told_apart(stage: Stage, key: str, meant: str) -> None:
    """The names are close; whoever writes one for the other is told the right one, and not some other `.model`."""
    with pytest.raises(MuarlError) as caught:
        _resolve(stage, f"{key}=x")
    assert caught.value.next_step == f"did you mean {meant}?"
