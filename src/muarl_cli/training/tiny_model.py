"""A model made from nothing: a small Qwen3 with its own tokenizer, and the loading of any model folder.

Nothing may depend on downloaded weights, so the tiny model is an ordinary Hugging Face folder that goes through the
same code path as a Qwen3-8B. Invariant: only safetensors are read, and code inside a model folder is never run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.chat_format import END, STOP, Rendering
from muarl_cli.training.induction import can_be_wired, wire
from muarl_cli.training.lora import base_of, load_lora
from muarl_cli.training.template_format import Dialect
from muarl_cli.training.tokenizer import make_tokenizer, save_tokenizer

DTYPES = ("fp32", "bf16")
MLP_RATIO = 3
"""inner width of the feed-forward blocks, as in Qwen3"""


@dataclass(frozen=True)
class TinySpec:
    """The shape of a tiny model. Width is independent of heads x head_size, as in Qwen3."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    max_length: int = 4096


def new_model(spec: TinySpec, tokenizer: Any, seed: int) -> Any:
    """A random `Qwen3ForCausalLM` (fp32, tied embeddings) for this tokenizer; `seed` decides its weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=MLP_RATIO * spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_size,
        max_position_embeddings=spec.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(STOP),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    if can_be_wired(config):
        wire(model, seed)
    return model


def make_tiny(texts: Iterable[str], out_dir: Path, spec: TinySpec, seed: int, rendering: Rendering | str) -> Path:
    """Make tokenizer and model from `texts` and write them to `out_dir` as a Hugging Face folder."""
    tokenizer = make_tokenizer(texts, spec.vocab)
    model = new_model(spec, tokenizer, seed)
    save_model(model, tokenizer, out_dir, rendering)
    return out_dir


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    rendering: Rendering | str,
    weights: Mapping[str, Any] | None = None,
    dialect: Dialect | str = Dialect.NONTHINKING,
) -> None:
    """Write weights (safetensors), configuration, tokenizer and chat template into `folder`; of an adapter model the
    adapter alone. `weights` by name are written in place of the model's own, which may be spread over processes."""
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {} if weights is None else {"state_dict": dict(weights)}
    if hasattr(model, "peft_config"):
        given["save_embedding_layers"] = False  # they are not trained; to find out, the library would ask its hub
    model.save_pretrained(str(folder), **given)
    save_tokenizer(tokenizer, folder, rendering, dialect)


def load_model(path: Path | str, dtype: str) -> Any:
    """A causal language model from a folder, weights in `dtype` ("fp32" or "bf16"), in evaluation mode; an adapter's
    folder gives its base with the adapter.

    Raises `MuarlError` where the folder holds no model, or weights that are no safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    base = base_of(folder)
    if base is not None:
        return load_lora(load_model(base, dtype), folder)
    require_model_folder(folder, "config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin"))
        raise MuarlError(
            f"no safetensors weights in {folder}",
            why="the weights are pickles, which can run code when they are read" if pickled else "",
            next_step="convert them: load the model in a place you trust and save_pretrained(safe_serialization=True)",
            code=ExitCode.BAD_DATA,
        )
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=wanted, trust_remote_code=False, use_safetensors=True, local_files_only=True
    )
    model.eval()
    return model


def context_of(folder: Path) -> int:
    """The longest conversation that the model in `folder` can hold, in tokens."""
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])


def format_of(path: Path | str) -> tuple[Rendering, Dialect] | None:
    """Which rendering and dialect a folder that muarl wrote was made for; None for other people's folders."""
    template = Path(path) / "chat_template.jinja"
    if not template.is_file():
        return None
    from muarl_cli.training.chat_format import chat_template

    text = template.read_text(encoding="utf-8")
    known = ((rendering, dialect) for rendering in Rendering for dialect in (Dialect.NONTHINKING, Dialect.THINKING))
    return next((each for each in known if text == chat_template(each[0], each[1] is Dialect.THINKING)), None)


def require_model_folder(folder: Path, needed: str) -> None:
    """Raise `MuarlError` unless `folder` looks like a Hugging Face model folder that has the file `needed`."""
    if (folder / needed).is_file():
        return
    raise MuarlError(
        f"{folder} is no model folder" if folder.is_dir() else f"there is no folder {folder}",
        why=f"it has no {needed}" if folder.is_dir() else "",
        next_step="name a Hugging Face folder (config.json, tokenizer.json, *.safetensors) or a run of muarl",
        code=ExitCode.MISSING_INPUT,
    )
