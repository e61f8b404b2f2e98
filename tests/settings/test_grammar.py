"""Task sets, mixtures and YAML values: one text, one meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.errors import MuarlError
from muarl_cli.settings.grammar import SOURCES, parse_engines, parse_mixture, parse_task_ref, split_override
from muarl_cli.settings.yamlio import dump, load_text

NAMES = ("scripted", "llm", "hf", "replay")
words = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)


@given(st.sampled_from([*SOURCES, "path/to/domain", "./mine"]), words, words, st.one_of(st.just(""), words))
def test_a_task_ref_reads_back_what_it_writes(source: str, scenario: str, split: str, ident: str) -> None:
    ref = parse_task_ref(":".join(part for part in (source, scenario, split, ident) if part))
    assert (ref.source, ref.scenario, ref.split, ref.id) == (source, scenario, split, ident)
    assert parse_task_ref(str(ref)) == ref
    assert ref.is_path == (source not in SOURCES)


def test_an_id_may_hold_colons() -> None:
    assert parse_task_ref("tau2:telecom:base:[mms]:x").id == "[mms]:x"


@pytest.mark.parametrize("text", ["", "retail", "builtin:retail", "builtin::test", "bultin:retail:test", ":::"])
def test_what_is_no_task_ref_is_an_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(MuarlError) as caught:
        parse_task_ref(text)
    assert "builtin" in caught.value.next_step


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 100), min_size=1))
def test_shares_of_a_mixture_sum_to_one_in_the_order_given(shares: dict[str, float]) -> None:
    text = ", ".join(f"{name}={share}" for name, share in shares.items())
    mixture = parse_mixture(text, NAMES, "user backend")
    assert [name for name, _ in mixture] == list(shares)
    assert sum(share for _, share in mixture) == pytest.approx(1)
    total = sum(shares.values())
    for name, share in mixture:
        assert share == pytest.approx(shares[name] / total)


def test_a_single_name_is_a_mixture_of_one() -> None:
    assert parse_mixture("llm", NAMES, "user backend") == (("llm", 1.0),)


@pytest.mark.parametrize(
    "text", ["", "skripted", "llm,hf", "llm=0.5,hf", "llm=0.5,llm=0.5", "llm=x", "llm=-1,hf=2", "llm=0,hf=1", "llm=inf"]
)
def test_a_broken_mixture_is_an_error(text: str) -> None:
    with pytest.raises(MuarlError):
        parse_mixture(text, NAMES, "user backend")


def test_an_override_keeps_everything_behind_the_first_equals_sign() -> None:
    assert split_override("user.backend=scripted=0.6,llm=0.4") == ("user.backend", "scripted=0.6,llm=0.4")
    with pytest.raises(MuarlError):
        split_override("retail")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-6", 5e-6),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("007", "007"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2024-11-20", "2024-11-20"),
        ("builtin:retail:test", "builtin:retail:test"),
        ("[a, 1]", ["a", 1]),
        ("~", None),
        ("<<", "<<"),
    ],
)
def test_yaml_values_have_no_surprises(text: str, value: Any) -> None:
    read = load_text(text, "test")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        "a: {b: 1, b: 2}",
        "x: &x [1]\ny: *x",
        "!!python/object/apply:os.system [id]",
        "a: [",
        "[" * 30 + "]" * 30,
        "a:\n\t- 1",
    ],
)
def test_yaml_that_is_broken_or_dangerous_is_refused(text: str) -> None:
    with pytest.raises(MuarlError) as caught:
        load_text(text, "some.yaml")
    assert "some.yaml" in caught.value.where


plain = st.recursive(
    st.one_of(st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, plain, max_size=4))
def test_yaml_written_is_yaml_read(value: dict[str, Any]) -> None:
    text = dump(value)
    try:
        assert load_text(text, "test") == value
    except MuarlError as error:
        assert "key or password" in error.what, text


def test_vllm_in_this_process_is_an_engine_with_options_and_stands_alone() -> None:
    assert parse_engines([]) is None and parse_engines(["http://127.0.0.1:8000/v1"]) is None
    assert parse_engines(["vllm"]) == {}
    found = parse_engines(
        ["vllm?enforce_eager=true&gpu_memory_utilization=0.5&tensor_parallel_size=2&quantization=fp8"]
    )
    assert found == {
        "enforce_eager": True,
        "gpu_memory_utilization": 0.5,
        "tensor_parallel_size": 2,
        "quantization": "fp8",
    }
    for wrong in (["vllm", "http://127.0.0.1:8000/v1"], ["vllm?eager"], ["vllm?a=1&a=2"], ["vllm?=1"]):
        with pytest.raises(MuarlError):
            parse_engines(wrong)
