"""Low-rank adapters through PEFT: what is trained is two thin matrices beside each linear layer.

Invariant: a new adapter changes nothing (its second matrix is zero), so the policy starts as the base; the base is the
reference of a KL, with the adapter off. A saved adapter is an ordinary PEFT folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed

ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class LoraSpec:
    """Names and meanings are those of `lora` in `stages/rl_train.yaml`."""

    rank: int
    alpha: float
    targets: str
    """all-linear, or names of modules separated by commas"""


def with_lora(model: Any, spec: LoraSpec, seed: int) -> Any:
    """The model with a fresh adapter, alone trainable; `seed` decides its first matrices. Raises `MuarlError` for
    targets that the model does not have."""
    import torch
    from peft import LoraConfig, get_peft_model

    names = [name.strip() for name in spec.targets.split(",") if name.strip()]
    known = [f".{name}" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    unknown = [name for name in names if name != "all-linear" and not any(k.endswith(f".{name}") for k in known)]
    if unknown or not names:  # PEFT passes over a name that fits nothing, as long as another one does
        raise MuarlError(
            f"no adapter can be put on {spec.targets!r}",
            where="lora.targets",
            why=f"the model has no linear layer {', '.join(unknown)}" if unknown else "none is named",
            next_step=f"all-linear, or some of {', '.join(sorted({name.rpartition('.')[2] for name in known}))}",
            code=ExitCode.CONFIG,
        )
    targets: Any = "all-linear" if names == ["all-linear"] else names
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=targets, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lora"))
        # Adapters keep the number type of the base; the fp32 masters are the optimiser's.
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    base = getattr(model, "name_or_path", "")
    if base and Path(base).is_dir():  # a saved adapter must find its base from any working directory
        config.base_model_name_or_path = str(Path(base).resolve())
    return adapted.eval()


def load_lora(base: Any, folder: Path) -> Any:
    """The base with the adapter of `folder`, which stays trainable. Safetensors only."""
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise MuarlError(f"no safetensors adapter in {folder}", code=ExitCode.BAD_DATA)
    model = PeftModel.from_pretrained(base, str(folder), is_trainable=True, autocast_adapter_dtype=False)
    return model.eval()


def base_of(folder: Path) -> Path | None:
    """The model folder that the adapter in `folder` was trained on; None where it holds no adapter."""
    import json

    if not (folder / ADAPTER).is_file():
        return None
    return Path(json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"])


def require_whole(folder: Path) -> None:
    """Raises `MuarlError` for an adapter by itself: a server holds whole models, and would play its base unseen."""
    if base_of(folder) is None:
        return
    raise MuarlError(
        f"{folder} is an adapter, and a server plays whole models",
        next_step=f"muarl export model {folder} --out FOLDER adds it to its base: serve that folder, and name it as "
        "the model; or --engine vllm, which takes both",
        code=ExitCode.USAGE,
    )


def rank_of(folder: Path) -> int:
    """The rank of the adapter in `folder`, the largest where parts of it differ."""
    import json

    config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    return max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 0)
