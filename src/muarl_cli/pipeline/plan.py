"""`muarl plan`: a forecast from settings, hardware and latencies, without starting anything.

With `like`, an earlier run on this machine, conversations and speeds are measured; otherwise they are the paper's
typical ones on an accelerator's data sheet, and so is the model where its name says its size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline import forecast as f
from muarl_cli.pipeline import sheet
from muarl_cli.pipeline.parties import Talker
from muarl_cli.pipeline.policy import load_policy
from muarl_cli.records.checkpoint import resolve_model_path
from muarl_cli.records.ledger import KNOWN_PRICES
from muarl_cli.settings.grammar import nearest, parse_engines
from muarl_cli.settings.models import RlTrain
from muarl_cli.training.lora import base_of

SYSTEM_TOKENS = 5000
"""policy and tool schemas, as long as the released code's prompt limit"""
GPU, GPUS = "h200", 8
"""where none is named"""
_SHEET = ("gpu", "gpus", "engine-gpus")


def plan(
    settings: RlTrain,
    model: str,
    gpu: str | None,
    gpus: int | None,
    latency: float,
    like: Path | None,
    talk: Talker,
    engine_gpus: int | None = None,
) -> dict[str, Any]:
    """The forecast of a step of these settings as a JSON document; raises `MuarlError` for what it cannot know."""
    if like is not None:
        if given := [f"--{name}" for name, value in zip(_SHEET, (gpu, gpus, engine_gpus), strict=True) if value]:
            raise MuarlError(
                f"{', '.join(given)} changes nothing with --like",
                why="speeds are measured: on this machine, and at the engines that are named",
                next_step="leave it out, or leave out --like for a forecast from the data sheet",
            )
        known = _from_run(settings, model, like, talk)
    else:
        known = _from_sheet(settings, model, gpu or GPU, gpus or GPUS, engine_gpus, latency)
    work, rates = known.work, known.rates
    found = _forecast(settings, work, rates, latency)
    layout = known.layout
    return {
        "hardware": known.where,
        "engines": rates.replicas,
        **({"engine_gpus": layout.draw, "training_gpus": layout.train} if layout else {}),
        "staleness": settings.staleness,
        "episodes": len(work.episodes),
        "tokens": work.tokens,
        "taught_share": round(work.taught, 3),
        "step_seconds": round(found.step_seconds, 2),
        "rollout_seconds": round(found.rollout_seconds, 2),
        "update_seconds": round(found.update_seconds, 2),
        "delivery_seconds": round(rates.delivery.seconds, 2) if rates.delivery else 0.0,
        "idle_share": round(found.idle_share, 4),
        "trainer_idle_share": round(found.trainer_idle_share, 4),
        "rollout_idle_share": round(found.rollout_idle_share, 4),
        "memory_gb_per_device": known.memory,
        "fits": known.fits,
        "user_usd_per_step": round(_user_usd(settings, known), 5),
        "run_hours": round(settings.steps * found.step_seconds / 3600, 2) if settings.steps else None,
        "assumed": known.assumed,
    }


def _forecast(settings: RlTrain, work: f.Work, rates: f.Rates, latency: float) -> f.Forecast:
    return f.forecast(work, rates, latency, settings.in_flight, settings.refill_rounds, settings.staleness)


@dataclass(frozen=True)
class _Known:
    """What a forecast starts from."""

    where: str
    work: f.Work
    rates: f.Rates
    memory: dict[str, float]
    fits: bool
    assumed: str
    layout: sheet.Layout | None = None
    """who does what, of accelerators"""
    usd_per_episode: float | None = None
    """what the user model cost there, where it was this one"""


def _from_run(settings: RlTrain, model: str, like: Path, talk: Talker) -> _Known:
    """Conversations of an earlier run, speeds and memory of this machine, and of the servers that are named."""
    from muarl_cli.pipeline.probe import episodes_of, probe, work_of

    if settings.engines and parse_engines(settings.engines) is not None:
        raise MuarlError(
            "vLLM in this process is not measured",
            where=f"engines={settings.engines[0]}",
            next_step="name a server (`muarl serve MODEL`) with engines=http://HOST:8000/v1, or leave out --like",
            code=ExitCode.CONFIG,
        )
    policy = load_policy(str(model or settings.model or like), settings.rendering, settings.dtype, talk)
    episodes = episodes_of(like)
    work = work_of(episodes, settings.prompts_per_step * settings.group, settings.group)
    found = probe(policy, settings, work, episodes, talk)
    keys = 0.0
    if not settings.engines:
        full = policy.dtype == "fp32"
        keys = sheet.keys_bytes(shape_of(str(policy.folder)), full) * f.cached_tokens(work, settings.in_flight)
    memory = {"training": round((found.held + found.memory + keys) / 1e9, 2)}
    costs = [e.volatile.get("cost_usd", 0.0) for e in episodes if e.user.get("model") == settings.user.model]
    usd = sum(costs) / len(costs) if costs and sum(costs) else None
    assumed = "conversations and speeds were measured here"
    where = "this machine, probed"
    if settings.engines:
        where += ", with " + ", ".join(dict.fromkeys(settings.engines))
        assumed += "; that servers take new weights in the time in which this process can read them"
    return _Known(where, work, found.rates, memory, True, assumed, usd_per_episode=usd)


def _from_sheet(settings: RlTrain, model: str, gpu: str, gpus: int, engine_gpus: int | None, latency: float) -> _Known:
    """Typical conversations, and an accelerator's data sheet."""
    shape, count = shape_of(model or settings.model), settings.prompts_per_step * settings.group
    if gpu not in sheet.DEVICES:
        raise MuarlError(f"unknown accelerator {gpu!r}", next_step=nearest(gpu, list(sheet.DEVICES)))
    limits, device = settings.limits, sheet.DEVICES[gpu]
    work = f.typical_work(count, limits.max_turns, limits.max_turn_tokens, SYSTEM_TOKENS, settings.seed)
    context = f.usual_context(work)

    open_at_once = min(settings.in_flight, count * (1 + settings.staleness))

    def memory(layout: sheet.Layout) -> dict[str, float]:
        return sheet.memory_gb(shape, layout, settings.micro_batch_tokens, open_at_once, context)

    def rates(layout: sheet.Layout) -> f.Rates:
        return sheet.rates_of(shape, device, layout, context / 2, bool(settings.lora.rank))

    def fits(layout: sheet.Layout) -> bool:
        return max(memory(layout).values()) < device.memory / 1e9

    def seconds(layout: sheet.Layout) -> float:
        return _forecast(settings, work, rates(layout), latency).step_seconds

    layouts = _layouts(settings, shape, device, gpus, engine_gpus)
    found = _shortest([each for each in layouts if fits(each)] or layouts, seconds)
    assumed = "nothing of it was measured"
    if found.engine is sheet.Engine.SERVERS and not settings.lora.rank:
        assumed += f"; weights are written for servers, and read by them, with {sheet.FOLDER / 1e9:g} GB/s"
    if found.engine is sheet.Engine.SERVERS and not settings.engines:
        assumed += f"; no engine is named: {found.draw} accelerators are taken to be those of servers (--engine)"
    return _Known(f"{gpus} x {gpu}", work, rates(found), memory(found), fits(found), assumed, found)


def _layouts(
    settings: RlTrain, shape: sheet.Shape, device: sheet.Device, gpus: int, engine_gpus: int | None
) -> list[sheet.Layout]:
    """Who may do what. Raises `MuarlError` where the settings leave nobody to draw or to train."""
    here = parse_engines(settings.engines)
    if here is not None and engine_gpus:
        raise MuarlError(
            "--engine-gpus is for servers",
            why=f"{settings.engines[0]} draws in the trainer's process, on an accelerator that trains",
            next_step="leave it out, or name servers with engines=http://HOST:8000/v1",
            code=ExitCode.CONFIG,
        )
    wide = int((here or {}).get("tensor_parallel_size", 1))
    addresses = max(1, len(set(settings.engines)))
    if here is not None:
        found = [sheet.Layout(sheet.Engine.VLLM, wide, wide, 1, gpus)] if wide <= gpus else []
    elif gpus == 1 and not settings.engines and not engine_gpus:
        found = [sheet.Layout(sheet.Engine.MODULE, 1, 1, 1, 1)]
    else:
        most = engine_gpus or 1
        found = list(sheet.splits(shape, device, gpus, engine_gpus, addresses)) if most < gpus else []
    if not found:
        raise MuarlError(
            f"{gpus} accelerators are too few",
            where=f"--gpus {gpus}" + (f" --engine-gpus {engine_gpus}" if engine_gpus else ""),
            why="servers have accelerators of their own, at least one an address, and one or more are left to train"
            if here is None
            else f"{settings.engines[0]} is spread over {wide}",
            next_step="name more with --gpus, or fewer for the engines",
        )
    return found


def _shortest(layouts: list[sheet.Layout], seconds: Callable[[sheet.Layout], float]) -> sheet.Layout:
    """That with the shortest step; of equals the one that trains on more."""
    return min(layouts, key=lambda layout: (seconds(layout), -layout.train))


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


def shape_of(model: str) -> sheet.Shape:
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
        return sheet.Shape(float(layers * layer + tables), layers, width, pairs)
    for size_name, shape in sheet.QWEN3.items():
        if model.lower().endswith(f"qwen3-{size_name.lower()}"):
            return shape
    raise MuarlError(
        f"the size of {model!r} is not known" if model else "no model is named",
        next_step=f"--model with a folder, or with {', '.join(f'Qwen/Qwen3-{name}' for name in sheet.QWEN3)}",
        code=ExitCode.MISSING_INPUT,
    )
