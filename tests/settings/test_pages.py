"""The pages hold exactly the settings of the models, and the paper profiles hold exactly what was published."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from muarl_cli.errors import MuarlError
from muarl_cli.settings.bases import Stage, StageSettings
from muarl_cli.settings.models import FREE_KEYS, MODELS
from muarl_cli.settings.pages import flatten, groups, leaves, page, profile, profile_names
from muarl_cli.settings.resolve import resolve
from muarl_cli.settings.schema import profile_schema, stage_schema

PAPER_8B, PAPER_14B, PAPER_32B = "paper-8b", "paper-14b", "paper-32b"
PAPER_32B_4X8 = "paper-32b-4x8"
PUBLISHED: list[tuple[str, str, Any]] = [
    # (stage, setting, value): MUA-RL, arXiv 2508.18669, and where it is silent its released code
    ("sft", "batch", 128),
    ("sft", "epochs", 2),
    ("sft", "lr", 5e-6),
    ("sft", "schedule", "cosine"),
    ("rl_train", "prompts_per_step", 32),
    ("rl_train", "group", 8),
    ("rl_train", "epochs", 25),
    ("rl_train", "steps", 0),
    ("rl_train", "lr", 1e-6),
    ("rl_train", "schedule", "constant"),
    ("rl_train", "warmup_steps", 0),
    ("rl_train", "weight_decay", 0.01),
    ("rl_train", "grad_clip", 1.0),
    ("rl_train", "kl_coef", 0.001),
    ("rl_train", "kl_estimator", "k3"),
    ("rl_train", "advantage", "mean_std"),
    ("rl_train", "reward", "outcome"),
    ("rl_train", "loss", "token_mean"),
    ("rl_train", "clip_low", 0.2),
    ("rl_train", "clip_high", 0.2),
    ("rl_train", "temperature", 1.0),
    ("rl_train", "top_p", 1.0),
    ("rl_train", "updates_per_batch", 1),
    ("rl_train", "save_every", 10),
    ("rl_train", "limits.max_turn_tokens", 1024),
    ("rl_train", "limits.max_turns", 30),
    ("rl_train", "limits.max_context", 32768),
    ("rl_train", "user.backend", "llm"),
    ("rl_train", "user.model", "gpt-4o-2024-11-20"),
    ("rl_train", "user.temperature", 0.0),
    ("rl_train", "user.max_tokens", 4096),
    ("rl_train", "tasks", ["tau1:retail:test", "tau1:airline:test"]),
    ("rollout", "group", 8),
    ("rollout", "limits.max_turns", 30),
    ("synth_coldstart", "scenarios", "9"),
    ("synth_coldstart", "count", 2000),
    ("eval", "user.backend", "llm"),
    ("eval", "user.model", "gpt-4.1-2025-04-14"),
    ("eval", "user.temperature", 0.0),
    ("eval", "temperature", 0.0),
    ("eval", "trials", 4),
    ("eval", "limits.max_context", 32768),
]


@pytest.mark.parametrize("stage", list(Stage))
def test_page_and_model_have_the_same_settings(stage: Stage) -> None:
    model = MODELS[stage]
    assert sorted(flatten(page(stage), model)) == sorted(leaves(model))


def _fields(model: type[Any]) -> list[tuple[str, Any]]:
    found = []
    for name, field in model.model_fields.items():
        found.append((f"{model.__name__}.{name}", field))
        if hasattr(field.annotation, "model_fields"):
            found += _fields(field.annotation)
    return found


@pytest.mark.parametrize("model", MODELS.values())
def test_no_field_has_a_default_in_code_and_each_explains_itself(model: type[StageSettings]) -> None:
    inner_groups = {name.split(".")[-1] for name in groups(model)}
    for name, field in _fields(model):
        assert field.is_required(), f"{name} has a default in code; defaults stand in stages/*.yaml"
        assert field.description or name.split(".")[-1] in inner_groups, f"{name} has no docstring"


@pytest.mark.parametrize("stage", list(Stage))
def test_every_setting_of_a_page_has_its_reason_beside_it(stage: Stage) -> None:
    text = files("muarl_cli.stages").joinpath(f"{stage.value}.yaml").read_text("utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        name = line.split(":")[0].strip()
        if line.strip() and not line.lstrip().startswith("#") and not line.rstrip().endswith(":"):
            assert " # " in line or name in {"heads", "kv_heads", "head_size", "warmup_lr", "warmup_batch", "tasks"}, (
                f"{stage.value}.yaml:{number}: {name} has no reason beside it"
            )
    head = text[: text.index("\n\n")]
    assert "# reads" in head and "# writes" in head


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("name", ["", "tiny", PAPER_8B, PAPER_14B, PAPER_32B, PAPER_32B_4X8])
def test_every_profile_sets_every_stage_to_valid_values(stage: Stage, name: str) -> None:
    resolved = resolve(stage, profile_name=name, environ={})
    assert set(resolved.origins.values()) - {"stage page"} or not name, f"{name} says nothing about {stage}"


def test_the_five_profiles_ship() -> None:
    assert profile_names() == [PAPER_14B, PAPER_32B, PAPER_32B_4X8, PAPER_8B, "tiny"]


def test_the_profile_for_many_gpus_changes_how_it_is_computed_and_not_what() -> None:
    many, one = profile(PAPER_32B_4X8), profile(PAPER_32B)
    for stage in ("sft", "rl_train"):
        assert many[stage].pop("shards.zero") == 3 and many[stage].pop("recompute") is True
    assert many == one


@pytest.mark.parametrize("name", [PAPER_8B, PAPER_14B, PAPER_32B])
@pytest.mark.parametrize(("stage", "key", "value"), PUBLISHED)
def test_paper_profile_holds_the_published_value(name: str, stage: str, key: str, value: Any) -> None:
    assert resolve(Stage(stage), profile_name=name, environ={}).flat()[key] == value


@pytest.mark.parametrize(("name", "size"), [(PAPER_8B, "8B"), (PAPER_14B, "14B"), (PAPER_32B, "32B")])
def test_paper_profiles_differ_in_the_model_alone(name: str, size: str) -> None:
    assert profile(name)["sft"].pop("model") == f"Qwen/Qwen3-{size}"
    one, other = profile(name), profile(PAPER_8B)
    one["sft"].pop("model"), other["sft"].pop("model")
    assert one == other


@pytest.mark.parametrize("name", [PAPER_8B, PAPER_14B, PAPER_32B])
def test_paper_profiles_name_the_retirement_and_a_local_replacement(name: str) -> None:
    text = files("muarl_cli.stages").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    for words in ("gpt-4o-2024-11-20", "gpt-4.1-2025-04-14", "Qwen3-32B"):
        assert words in text
    main = files("muarl_cli.stages").joinpath("profiles", f"{PAPER_8B}.yaml").read_text("utf-8")
    assert "14 Jan 2027" in main and "vllm serve Qwen/Qwen3-32B" in main


def test_a_profile_that_extends_itself_is_refused(tmp_path: Any) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    with pytest.raises(MuarlError, match="extend each other"):
        profile(str(one))


def test_free_keys_are_settings() -> None:
    known = {key for model in MODELS.values() for key in leaves(model)}
    assert known >= FREE_KEYS


@pytest.mark.parametrize("stage", list(Stage))
def test_schema_accepts_the_pages_and_refuses_a_typo(stage: Stage) -> None:
    from jsonschema import Draft202012Validator

    schema = stage_schema(stage)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors(page(stage))) == []
    assert list(validator.iter_errors({"seeed": 1})) != []
    assert list(validator.iter_errors({"seed": -1})) != []


@pytest.mark.parametrize("name", ["tiny", PAPER_8B, PAPER_32B])
def test_schema_accepts_the_profiles_that_ship(name: str) -> None:
    from jsonschema import Draft202012Validator

    from muarl_cli.settings.yamlio import load_text

    text = files("muarl_cli.stages").joinpath("profiles", f"{name}.yaml").read_text("utf-8")
    assert list(Draft202012Validator(profile_schema()).iter_errors(load_text(text, name))) == []
