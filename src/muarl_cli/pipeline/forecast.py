"""What an RL step will take: seconds, memory, user-model cost and how long accelerators wait, before it is paid for.

The conversations of a step are simulated turn by turn (`drawing.py`); then the update takes the tokens of the groups
that teach. Invariant: the same work and rates give the same forecast. Rates come from a probe of this machine
(`probe.py`) or from an accelerator's data sheet with the shares of it that well-kept engines reach.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from muarl_cli.pipeline.drawing import Drawing, Served, Turn

BYTES = 2
"""of a bf16 weight"""
STATE_BYTES = 16
"""of a trained weight: bf16 weight and gradient, fp32 master and AdamW's two moments"""


@dataclass(frozen=True)
class Work:
    """The conversations of a step."""

    episodes: tuple[tuple[Turn, ...], ...]
    taught: float
    """share of their tokens that the update sees: those of groups that teach something"""
    shared: float
    """tokens that each begins with and an engine reads once for all; the update's rows hold them"""

    @property
    def tokens(self) -> int:
        """in the rows of all conversations"""
        own = sum(turn.fed + turn.drawn for episode in self.episodes for turn in episode)
        return round(own + self.shared * len(self.episodes))

    @property
    def user_turns(self) -> int:
        return sum(turn.of_user for episode in self.episodes for turn in episode)


@dataclass(frozen=True)
class Rates:
    """What engines (all of one kind) and the trainer do."""

    engine: Drawing
    train: float
    """tokens a second, forward and backward, all devices together"""
    replicas: int = 1


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


def widths_of(shape: Shape, device: Device, devices: int) -> list[int]:
    """Over how many devices (1, 2, 4, 8) one engine may be spread: those that hold the weights in 60 % of their memory,
    or all there are."""
    found = [n for n in (1, 2, 4, 8) if n <= devices and shape.weights * BYTES <= 0.6 * device.memory * n]
    return found or [devices]


def rates_of(shape: Shape, device: Device, devices: int, wide: int, context: float) -> Rates:
    """Rates from the data sheet, with engines of `wide` devices each. `context` is the usual length of a conversation,
    whose keys are read in every step of decoding."""
    bandwidth = device.bandwidth * REACHED["bandwidth"] * wide
    flops = device.flops * REACHED["prefill"] * wide
    keys = 2 * BYTES * shape.layers * shape.kv_width * context
    engine = Served(
        decode_base=shape.weights * BYTES / bandwidth,
        decode_row=keys / bandwidth + 2 * shape.weights / flops,
        prefill=flops / (2 * shape.weights),
    )
    return Rates(
        engine,
        train=device.flops * REACHED["train"] * devices / (6 * shape.weights),
        replicas=max(1, devices // wide),
    )


def typical_work(episodes: int, max_turns: int, max_turn_tokens: int, prompt: int, seed: int) -> Work:
    """Conversations as the paper's policies hold them: some 22 counted turns of which six in ten are tool calls, turns
    of about 90 tokens, tool answers of 180, user turns of 40; half of the groups teach."""
    draw = random.Random(seed)
    found = []
    for _ in range(episodes):
        count = min(max_turns, max(4, round(draw.gauss(22, 6))))
        turns = []
        for number in range(count):
            of_user = number == 0 or draw.random() < 0.4
            news = round(draw.expovariate(1 / (40 if of_user else 180)))
            drawn = 1 + min(max_turn_tokens - 1, round(draw.expovariate(1 / 90)))
            turns.append(Turn(max(1, news), drawn, of_user))
        found.append(tuple(turns))
    return Work(tuple(found), 0.5, prompt)


@dataclass(frozen=True)
class Forecast:
    rollout_seconds: float
    update_seconds: float
    idle_share: float
    """of the whole step, engines waiting for users and tools"""

    @property
    def step_seconds(self) -> float:
        return self.rollout_seconds + self.update_seconds


def forecast(work: Work, rates: Rates, user_latency: float, in_flight: int, refills: int = 0) -> Forecast:
    """One step. Conversations are dealt to the replicas in turn; the slowest one ends the rollout. Groups that teach
    nothing are replaced by others, at most `refills` times."""
    slots = max(1, math.ceil(in_flight / rates.replicas))
    rollout = busy = 0.0
    for refill in range(1 + refills):
        held = work.episodes[: round(len(work.episodes) * (1 - work.taught) ** refill)]
        parts = [held[i :: rates.replicas] for i in range(rates.replicas)]
        played = [rates.engine.play(part, work.shared, user_latency, slots) for part in parts]
        rollout += max(seconds for seconds, _ in played)
        busy += sum(worked for _, worked in played) / rates.replicas
    taught = 1 - (1 - work.taught) ** (1 + refills)
    update = work.tokens * taught / rates.train
    return Forecast(rollout, update, (rollout - busy) / max(1e-12, rollout + update))


def memory_gb(shape: Shape, devices: int, micro_batch_tokens: int, in_flight: int, context: float) -> dict[str, float]:
    """GB a device: weights, gradients and AdamW's state in shares (ZeRO-3) with the activations that checkpointing
    keeps; and, while it draws, weights and keys of all conversations spread over the devices."""
    kept = micro_batch_tokens * shape.layers * shape.width * BYTES * 1.2  # one input a layer, and the layer at work
    keys = 2 * BYTES * shape.layers * shape.kv_width * context * in_flight
    return {
        "training": round((shape.weights * STATE_BYTES / devices + kept) / 1e9, 1),
        "drawing": round((shape.weights * BYTES + keys) / devices / 1e9, 1),
    }


def keys_bytes(shape: Shape, full: bool) -> int:
    """Bytes of a token's keys and values in all layers; `full`: in fp32."""
    return 2 * (2 * BYTES if full else BYTES) * shape.layers * shape.kv_width


def cached_tokens(work: Work, in_flight: int) -> float:
    """Tokens whose keys the engine in this process has at its peak: those of all open conversations, and a place for
    each of them in the tensor that batches work on, which is as long as the longest."""
    wave = work.episodes[:in_flight]
    lengths = [work.shared + sum(turn.fed + turn.drawn for turn in episode) for episode in wave]
    return sum(lengths) + len(lengths) * max(lengths)


def user_cost(work: Work, price_in: float, price_out: float) -> float:
    """USD of a step: each user turn reads its instructions and the talk so far, and writes some 40 tokens. Prices are
    in USD per million tokens."""
    total = 0.0
    for episode in work.episodes:
        heard = 900.0
        for turn in episode:
            if turn.of_user:
                total += heard * price_in + 40 * price_out
                heard += 40 + turn.drawn
    return total / 1e6


def usual_context(work: Work) -> float:
    """Mean length of a conversation when it ends, in tokens."""
    return work.tokens / max(1, len(work.episodes))
