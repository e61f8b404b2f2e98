"""The tokenizer and the tiny model: ordinary folders, made from nothing, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.chat_format import Rendering
from muarl_cli.training.tiny_model import TinySpec, format_of, load_model, make_tiny, new_model
from muarl_cli.training.tokenizer import CONTROL_TOKENS, load_tokenizer, make_tokenizer
from muarl_cli.training.warmup import WarmupSpec, copy_warmup

SPEC = TinySpec(layers=1, width=16, heads=2, kv_heads=1, head_size=8, vocab=320)
TEXTS = ["call get_order_details now", "order 123"] * 10


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_digits_never_merge_and_tool_names_and_markers_are_one_token(tokenizer: Any) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer("48213", add_special_tokens=False).input_ids] == list("48213")
    assert len(tokenizer("get_order_details", add_special_tokens=False).input_ids) == 1
    for token in CONTROL_TOKENS:
        assert tokenizer(token, add_special_tokens=False).input_ids == [tokenizer.convert_tokens_to_ids(token)]
    assert len(tokenizer) <= 400


def test_a_vocabulary_too_small_for_all_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 265"):
        make_tokenizer(TEXTS, 200)


@pytest.mark.parametrize("rendering", list(Rendering))
def test_a_tiny_model_is_an_ordinary_folder_and_the_same_every_time(tmp_path: Path, rendering: Rendering) -> None:
    folders = [make_tiny(TEXTS, tmp_path / name, SPEC, 5, rendering) for name in ("a", "b")]
    assert (folders[0] / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"} <= {
        path.name for path in folders[0].iterdir()
    }
    assert format_of(folders[0]) == (rendering, "nonthinking")
    model, tokenizer = load_model(folders[0], "fp32"), load_tokenizer(folders[0])
    ids = torch.tensor([tokenizer("order 123", add_special_tokens=False).input_ids])
    fresh = new_model(SPEC, tokenizer, 5)
    assert torch.equal(model(ids).logits, fresh(ids).logits)
    assert load_model(folders[0], "bf16").dtype is torch.bfloat16


def test_another_seed_gives_other_weights_and_leaves_the_global_stream_alone(tokenizer: Any) -> None:
    before = torch.get_rng_state()
    one, other = new_model(SPEC, tokenizer, 1), new_model(SPEC, tokenizer, 2)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert torch.equal(before, torch.get_rng_state())


def test_pickled_weights_and_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MuarlError) as missing:
        load_model(tmp_path / "nowhere", "fp32")
    assert missing.value.code is ExitCode.MISSING_INPUT
    folder = make_tiny(TEXTS, tmp_path / "m", SPEC, 5, Rendering.FULL)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MuarlError, match="no safetensors") as pickled:
        load_model(folder, "fp32")
    assert "pickles" in pickled.value.why


def test_the_warm_up_learns_to_copy_and_is_the_same_every_time(tokenizer: Any) -> None:
    spec = TinySpec(layers=2, width=64, heads=4, kv_heads=4, head_size=16, vocab=320)
    runs = []
    for _ in range(2):
        model = new_model(spec, tokenizer, 0)
        runs.append([m["loss"] for m in copy_warmup(model, tokenizer, WarmupSpec(steps=12, lr=3e-3, batch=8), seed=1)])
    assert runs[0] == runs[1]
    assert runs[0][-1] < runs[0][0]
