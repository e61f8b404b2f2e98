"""What accelerators do by their data sheet: speed of engines and trainer, memory, and how many of them draw.

Engines that are servers have accelerators of their own, and those stand still for as long as there is nothing to draw;
an engine in the trainer's process draws on what trains. Invariant: no accelerator both serves and trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from muarl_cli.pipeline.drawing import Served
from muarl_cli.pipeline.forecast import Delivery, Rates

BYTES = 2
"""of a bf16 weight"""
STATE_BYTES = 16
"""of a trained weight: bf16 weight and gradient, fp32 master and AdamW's two moments"""


@dataclass(frozen=True)
class Shape:
    """What matters of a model."""

    weights: float
    layers: int
    width: int
    kv_width: int
    """key/value heads times head size"""


QWEN3 = {
    "8B": Shape(8.19e9, 36, 4096, 1024),
    "14B": Shape(14.77e9, 40, 5120, 1024),
    "32B": Shape(32.76e9, 64, 5120, 1024),
}


@dataclass(frozen=True)
class Device:
    """An accelerator's data sheet."""

    memory: float
    """bytes"""
    bandwidth: float
    """bytes a second"""
    flops: float
    """dense bf16 a second"""


DEVICES = {
    "a100": Device(80e9, 2.0e12, 312e12),
    "h100": Device(80e9, 3.35e12, 989e12),
    "h200": Device(141e9, 4.8e12, 989e12),
}
REACHED = {"bandwidth": 0.6, "prefill": 0.45, "train": 0.35}
"""shares of the data sheet that engines and sharded trainers usually reach"""
FOLDER = 2e9
"""bytes a second of the folder through which weights reach servers: written there, then read"""


def widths_of(shape: Shape, device: Device, devices: int) -> list[int]:
    """Over how many devices (1, 2, 4, 8) one engine may be spread: those that hold the weights in 60 % of their memory,
    or all there are."""
    found = [n for n in (1, 2, 4, 8) if n <= devices and shape.weights * BYTES <= 0.6 * device.memory * n]
    return found or [devices]


class Engine(StrEnum):
    """Where turns are drawn."""

    SERVERS = "servers"
    VLLM = "vllm"
    """in the trainer's process, with a copy of the weights"""
    MODULE = "module"
    """the module that is trained"""


@dataclass(frozen=True)
class Layout:
    """Who does what of some accelerators."""

    engine: Engine
    draw: int
    wide: int
    """over how many of them one engine is spread"""
    replicas: int
    train: int


def splits(shape: Shape, device: Device, devices: int, draw: int | None, addresses: int) -> Iterator[Layout]:
    """Every division between servers and trainer, or those with `draw` for the servers; each of the `addresses` stands
    for the same number of engines."""
    for own in range(1, devices) if draw is None else [draw]:
        for wide in widths_of(shape, device, own):
            replicas = own // wide // addresses * addresses
            if replicas and (draw is not None or replicas * wide == own):
                yield Layout(Engine.SERVERS, own, wide, replicas, devices - own)


def rates_of(shape: Shape, device: Device, layout: Layout, context: float, adapter: bool = False) -> Rates:
    """Rates from the data sheet. `context` is the usual length of a conversation, whose keys are read in every step of
    decoding. Of an adapter's weights the delivery takes no time."""
    bandwidth = device.bandwidth * REACHED["bandwidth"] * layout.wide
    flops = device.flops * REACHED["prefill"] * layout.wide
    keys = keys_bytes(shape, False) * context
    engine = Served(
        decode_base=shape.weights * BYTES / bandwidth,
        decode_row=keys / bandwidth + 2 * shape.weights / flops,
        prefill=flops / (2 * shape.weights),
    )
    passed = 0.0 if adapter else shape.weights * BYTES / FOLDER
    return Rates(
        engine,
        train=device.flops * REACHED["train"] * layout.train / (6 * shape.weights),
        replicas=layout.replicas,
        delivery=Delivery(passed, passed, not adapter) if layout.engine is Engine.SERVERS else None,
    )


def memory_gb(
    shape: Shape, layout: Layout, micro_batch_tokens: int, in_flight: int, context: float
) -> dict[str, float]:
    """GB a device. One that trains: weights, gradients and AdamW's state in shares (ZeRO-3), with the activations that
    checkpointing keeps. One that draws: its part of an engine's weights and of the keys of all conversations; beside
    the trainer's state where it trains as well, whose weights the module itself has already."""
    state = shape.weights * STATE_BYTES / layout.train
    kept = micro_batch_tokens * shape.layers * shape.width * BYTES * 1.2  # one input a layer, and the layer at work
    keys = keys_bytes(shape, False) * context * in_flight / (layout.replicas * layout.wide)
    weights = 0.0 if layout.engine is Engine.MODULE else shape.weights * BYTES / layout.wide
    beside = 0.0 if layout.engine is Engine.SERVERS else state
    return {
        "training": round((state + kept) / 1e9, 1),
        "drawing": round((beside + weights + keys) / 1e9, 1),
    }


def keys_bytes(shape: Shape, full: bool) -> int:
    """Bytes of a token's keys and values in all layers; `full`: in fp32."""
    return 2 * (2 * BYTES if full else BYTES) * shape.layers * shape.kv_width
