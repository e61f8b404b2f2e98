"""`muarl plan`: a forecast from settings, hardware and latencies, without starting anything.

With `like`, an earlier run on this machine, conversations and speeds are measured; otherwise they are the paper's
typical ones on an accelerator's data sheet, and so is the model where its name says its size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import forecast as f
from muarl_cli.records.ledger import KNOWN_PRICES
from muarl_cli.settings.grammar import nearest
from muarl_cli.settings.models import RlTrain

SYSTEM_TOKENS = 5000
"""policy and tool schemas, as long as the released code's prompt limit"""


def plan(settings: RlTrain, model: str, gpu: str, gpus: int, latency: float, like: Path | None) -> dict[str, Any]:
    """The forecast of a step of these settings as a JSON document; raises `MuarlError` for what it cannot know."""
    count = settings.prompts_per_step * settings.group
    if like is not None:
        from muarl_cli.pipeline.probe import episodes_of, probe, work_of
        from muarl_cli.records.checkpoint import resolve_model_path
        from muarl_cli.training.tiny_model import load_model

        folder = resolve_model_path(Path(model or settings.model or like), lambda line: None)
        episodes = episodes_of(like)
        work = work_of(episodes, count)
        dtype = "bf16" if settings.dtype == "bfloat16" else "fp32"
        rates = probe(load_model(folder, dtype), dtype, settings, episodes)
        shape, where = shape_of(str(folder)), "this machine, probed"
    else:
        shape, where = shape_of(model or settings.model), f"{gpus} x {gpu}"
        if gpu not in f.DEVICES:
            raise MuarlError(f"unknown accelerator {gpu!r}", next_step=nearest(gpu, list(f.DEVICES)))
        limits = settings.limits
        work = f.typical_work(count, limits.max_turns, limits.max_turn_tokens, SYSTEM_TOKENS, settings.seed)
        device, halfway = f.DEVICES[gpu], f.usual_context(work) / 2
        engines = [f.rates_of(shape, device, gpus, wide, halfway) for wide in f.widths_of(shape, device, gpus)]
        rates = min(engines, key=lambda each: f.forecast(work, each, latency, settings.in_flight).step_seconds)
    found = f.forecast(work, rates, latency, settings.in_flight)
    context = f.usual_context(work)
    memory = f.memory_gb(shape, gpus, settings.micro_batch_tokens, min(settings.in_flight, count), context)
    price = KNOWN_PRICES.get(settings.user.model)
    paid = settings.user.backend not in ("scripted", "auto") and price is not None
    return {
        "hardware": where,
        "engines": rates.replicas,
        "episodes": count,
        "tokens": work.tokens,
        "step_seconds": round(found.step_seconds, 2),
        "rollout_seconds": round(found.rollout_seconds, 2),
        "update_seconds": round(found.update_seconds, 2),
        "idle_share": round(found.idle_share, 4),
        "memory_gb_per_device": memory,
        "fits": like is not None or max(memory.values()) < f.DEVICES[gpu].memory / 1e9,
        "user_usd_per_step": round(f.user_cost(work, price.input_usd, price.output_usd), 3) if paid and price else 0.0,
        "run_hours": round(settings.steps * found.step_seconds / 3600, 2) if settings.steps else None,
        "assumed": "nothing of it was measured" if like is None else "conversations and speeds were measured here",
    }


def shape_of(model: str) -> f.Shape:
    """Sizes from a folder's config.json, or from a Qwen3 name; raises `MuarlError` for any other."""
    config = Path(model) / "config.json"
    if config.is_file():
        own = json.loads(config.read_text("utf-8"))
        width, layers, inner = own["hidden_size"], own["num_hidden_layers"], own["intermediate_size"]
        size = own.get("head_dim") or width // own["num_attention_heads"]
        heads, pairs = own["num_attention_heads"] * size, own["num_key_value_heads"] * size
        layer = width * (2 * heads + 2 * pairs) + 3 * width * inner
        tables = own["vocab_size"] * width * (1 if own.get("tie_word_embeddings") else 2)
        return f.Shape(float(layers * layer + tables), layers, width, pairs)
    for size_name, shape in f.QWEN3.items():
        if model.lower().endswith(f"qwen3-{size_name.lower()}"):
            return shape
    raise MuarlError(
        f"the size of {model!r} is not known" if model else "no model is named",
        next_step=f"--model with a folder, or with {', '.join(f'Qwen/Qwen3-{name}' for name in f.QWEN3)}",
        code=ExitCode.MISSING_INPUT,
    )
