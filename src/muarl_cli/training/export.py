"""A checkpoint as a Hugging Face folder for others to load: vLLM, transformers, a hub. Nothing of the trainer is in it.

An adapter is written as it is, beside the name of its base, or merged into the base's weights: W + (alpha / r) B A.
Invariant: what is written verifies and loads before it takes its name; an existing folder is never written over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from muarl_cli.engines.canary import NAME as CANARY
from muarl_cli.engines.canary import canary_of, write_canary
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.checkpoint import MANIFEST, TRAINER, resolve_model_path
from muarl_cli.records.safetensors_file import read_header

_ADAPTER = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_NOT_OURS_TO_GIVE = shutil.ignore_patterns(TRAINER, MANIFEST)


class Form(StrEnum):
    """What is written of a model with an adapter."""

    MERGED = "merged"
    """one model; what every server loads"""
    ADAPTER = "adapter"
    """the adapter alone; `vllm serve BASE --enable-lora --lora-modules NAME=DIR`"""


def export_model(run: Path, out: Path, form: Form | str, warn: Callable[[str], None]) -> dict[str, Any]:
    """Write the model of `run` (a run, a checkpoint or a model folder) to the new folder `out`; says what it holds.

    Raises `MuarlError`: where `out` exists, where the run has no model, no adapter to write alone, or where an
    adapter's base is not here.
    """
    if out.exists():
        raise MuarlError(
            f"{out} exists already", next_step="give --out a new folder, or remove this one", code=ExitCode.USAGE
        )
    folder = resolve_model_path(run, warn) if not (run / _ADAPTER).is_file() else run
    has_adapter = (folder / _ADAPTER).is_file()
    if Form(form) is Form.ADAPTER and not has_adapter:
        raise MuarlError(
            f"{folder} holds no adapter",
            why=f"it has no {_ADAPTER}: its weights are whole",
            next_step="leave --adapter away",
            code=ExitCode.USAGE,
        )
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        if has_adapter and Form(form) is Form.MERGED:
            _merge(folder, aside)
        else:
            shutil.copytree(folder, aside, ignore=_NOT_OURS_TO_GIVE)
            _add_canary(aside)
        size = _check(aside)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    kind = "adapter" if has_adapter and Form(form) is Form.ADAPTER else "merged" if has_adapter else "model"
    return {"from": str(folder), "out": str(out), "kind": kind, "bytes": size}


def _merge(folder: Path, aside: Path) -> None:
    """The base's weights with the adapter added, and everything beside the weights from the checkpoint."""
    from peft import PeftModel

    from muarl_cli.training.tiny_model import load_model

    base = Path(json.loads((folder / _ADAPTER).read_text("utf-8"))["base_model_name_or_path"])
    if not base.is_dir():
        raise MuarlError(
            f"the adapter's base {str(base)!r} is not here",
            where=str(folder / _ADAPTER),
            next_step="put the base where the adapter names it, or export with --adapter",
            code=ExitCode.MISSING_INPUT,
        )
    dtype = _dtype_of(base)
    merged = PeftModel.from_pretrained(load_model(base, dtype), str(folder), use_safetensors=True).merge_and_unload()
    merged.save_pretrained(str(aside))
    shutil.copytree(
        folder, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(TRAINER, MANIFEST, _ADAPTER, _WEIGHTS, CANARY)
    )
    write_canary(aside, canary_of(merged, dtype))


def _add_canary(aside: Path) -> None:
    """Of a whole model that has none: another program's, or an older checkpoint. It takes the model in memory once."""
    from muarl_cli.training.tiny_model import load_model

    if (aside / CANARY).is_file() or not (aside / "config.json").is_file() or not any(aside.glob("*.safetensors")):
        return  # an adapter alone is played on a base that may be another tomorrow; what is missing, `_check` names
    dtype = _dtype_of(aside)
    write_canary(aside, canary_of(load_model(aside, dtype), dtype))


def _dtype_of(folder: Path) -> str:
    """The precision that the model of a folder was written in, as `load_model` names it."""
    return "bf16" if "bfloat16" in (folder / "config.json").read_text("utf-8") else "fp32"


def _check(folder: Path) -> int:
    """Bytes of the weights; every file of them has an intact header, and configuration and tokenizer are there."""
    config = folder / (_ADAPTER if (folder / _ADAPTER).is_file() else "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        read_header(file)
    missing = [path.name for path in (config, folder / "tokenizer.json") if not path.is_file()]
    if missing or not weights:
        raise MuarlError(
            "the model cannot be exported",
            where=str(folder),
            why=f"it has no {', '.join(missing) or 'safetensors weights'}",
            code=ExitCode.BAD_DATA,
        )
    return sum(file.stat().st_size for file in weights)
