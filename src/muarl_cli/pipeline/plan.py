"""`muarl plan`: a forecast from settings, hardware and latencies, without starting anything.

With `like`, an earlier run on this machine, conversations and speeds are measured; otherwise they are the paper's
typical ones on an accelerator's data sheet, and so is the model where its name says its size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import forecast as f
from muarl_cli.pipeline.parties import Talker
from muarl_cli.pipeline.policy import load_policy
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.ledger import KNOWN_PRICES
from muarl_cli.settings.grammar import nearest
from muarl_cli.settings.models import RlTrain
from muarl_cli.training.lora import base_of

SYSTEM_TOKENS = 5000
"""policy and tool schemas, as long as the released code's prompt limit"""


def plan(
    settings: RlTrain, model: str, gpu: str, gpus: int, latency: float, like: Path | None, talk: Talker
) -> dict[str, Any]:
    """The forecast of a step of these settings as a JSON document; raises `MuarlError` for what it cannot know."""
    known = (
        _from_run(settings, model, like, talk) if like is not None else _from_sheet(settings, model, gpu, gpus, latency)
    )
    work, rates = known.work, known.rates
    found = f.forecast(work, rates, latency, settings.in_flight, settings.refill_rounds)
    return {
        "hardware": known.where,
        "engines": rates.replicas,
        "episodes": len(work.episodes),
        "tokens": work.tokens,
        "taught_share": round(work.taught, 3),
        "step_seconds": round(found.step_seconds, 2),
        "rollout_seconds": round(found.rollout_seconds, 2),
        "update_seconds": round(found.update_seconds, 2),
        "idle_share": round(found.idle_share, 4),
        "memory_gb_per_device": known.memory,
        "fits": known.fits,
        "user_usd_per_step": round(_user_usd(settings, known), 5),
        "run_hours": round(settings.steps * found.step_seconds / 3600, 2) if settings.steps else None,
        "assumed": known.assumed,
    }


@dataclass(frozen=True)
class _Known:
    """What a forecast starts from."""

    where: str
    work: f.Work
    rates: f.Rates
    memory: dict[str, float]
    fits: bool
    assumed: str
    usd_per_episode: float | None = None
    """what the user model cost there, where it was this one"""


def _from_run(settings: RlTrain, model: str, like: Path, talk: Talker) -> _Known:
    """Conversations of an earlier run, speeds and memory of this machine."""
    from muarl_cli.pipeline.probe import episodes_of, probe, work_of

    policy = load_policy(str(model or settings.model or like), settings.rendering, settings.dtype, talk)
    episodes = episodes_of(like)
    work = work_of(episodes, settings.prompts_per_step * settings.group, settings.group)
    found = probe(policy, settings, work, episodes)
    keys = f.keys_bytes(shape_of(str(policy.folder)), policy.dtype == "fp32") * f.cached_tokens(
        work, settings.in_flight
    )
    memory = {"training": round((found.held + found.memory + keys) / 1e9, 2)}
    costs = [e.volatile.get("cost_usd", 0.0) for e in episodes if e.user.get("model") == settings.user.model]
    usd = sum(costs) / len(costs) if costs and sum(costs) else None
    assumed = "conversations and speeds were measured here"
    return _Known("this machine, probed", work, found.rates, memory, True, assumed, usd)


def _from_sheet(settings: RlTrain, model: str, gpu: str, gpus: int, latency: float) -> _Known:
    """Typical conversations, and an accelerator's data sheet."""
    shape, count = shape_of(model or settings.model), settings.prompts_per_step * settings.group
    if gpu not in f.DEVICES:
        raise MuarlError(f"unknown accelerator {gpu!r}", next_step=nearest(gpu, list(f.DEVICES)))
    limits, device = settings.limits, f.DEVICES[gpu]
    work = f.typical_work(count, limits.max_turns, limits.max_turn_tokens, SYSTEM_TOKENS, settings.seed)
    context = f.usual_context(work)
    engines = [f.rates_of(shape, device, gpus, wide, context / 2) for wide in f.widths_of(shape, device, gpus)]
    rates = min(engines, key=lambda each: f.forecast(work, each, latency, settings.in_flight).step_seconds)
    memory = f.memory_gb(shape, gpus, settings.micro_batch_tokens, min(settings.in_flight, count), context)
    fits = max(memory.values()) < device.memory / 1e9
    return _Known(f"{gpus} x {gpu}", work, rates, memory, fits, "nothing of it was measured")


def _user_usd(settings: RlTrain, known: _Known) -> float:
    """What the user model costs a step: as it did in the earlier run, or by its price and by how much is usually said.
    Replaced groups are paid as well."""
    work = known.work
    held = sum((1 - work.taught) ** refill for refill in range(1 + settings.refill_rounds))
    if known.usd_per_episode is not None:
        return held * known.usd_per_episode * len(work.episodes)
    own = settings.prices.get(settings.user.model)
    listed = KNOWN_PRICES.get(settings.user.model)
    if settings.user.backend in ("scripted", "auto") or not (own or listed):
        return 0.0
    price_in, price_out = (own.input, own.output) if own else (listed.input_usd, listed.output_usd)  # type: ignore[union-attr]
    return held * f.user_cost(work, price_in, price_out)


_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def shape_of(model: str) -> f.Shape:
    """Sizes from a folder's config.json (a run's checkpoint, an adapter's base), or from a Qwen3 name; raises
    `MuarlError` for any other."""
    config = Path(model) / "config.json"
    if model and Path(model).is_dir() and not config.is_file():
        folder = resolve_model_path(Path(model), lambda line: None)
        config = (base_of(folder) or folder) / "config.json"
    if config.is_file():
        own = json.loads(config.read_text("utf-8"))
        if odd := [name for name in _SIZES if name not in own]:
            raise MuarlError(
                "the model's sizes are not those of a plain decoder",
                where=str(config),
                why=f"it does not say {', '.join(odd)}",
                next_step="plan with a Qwen3 of about its size",
                code=ExitCode.BAD_DATA,
            )
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
