"""What servers take for conversations like those of an earlier run, and what it takes to give them new weights.

Waves of that run's prompts go to the servers that the settings name, each turn as long as it was then; the seconds are
fitted to what a served engine's work is made of. Invariants: the servers compute with the weights of the model that is
named before anything is measured (`serving.py`), and still do afterwards: nothing is loaded there. How long they take
to load is taken to be what this process needs to read the same files.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.drawing import Made, Served
from muarl_cli.pipeline.forecast import Delivery
from muarl_cli.pipeline.parties import Agents, Talker
from muarl_cli.pipeline.policy import Policy, open_policy
from muarl_cli.pipeline.probe import Beside, fitted, held, waves
from muarl_cli.pipeline.serving import require_served
from muarl_cli.settings.models import RlTrain


def servers_of(policy: Policy, settings: RlTrain, say: Talker) -> tuple[Agents, float]:
    """The servers that are named, and the seconds in which they said what they compute. Raises `MuarlError` where one
    does not answer, or serves another model."""
    from muarl_cli.training.lora import require_whole

    require_whole(policy.folder)
    agents = open_policy(policy, settings, "probe", Path(tempfile.gettempdir()))  # nothing is delivered through it
    begun = time.perf_counter()
    require_served(agents, policy.folder, say)
    return agents, time.perf_counter() - begun


def probe_servers(agents: Agents, rows: Sequence[TokenRow], shared: float, in_flight: int, beside: Beside) -> Served:
    """What one of the servers costs, all alike; `shared` as in `Work`. Raises `MuarlError` where none answers."""
    decode_base, decode_row, read, again, turn = asyncio.run(_drawing(agents, rows, shared, in_flight, beside))
    return Served(decode_base, decode_row, 1 / read if read else math.inf, again, turn)


async def _drawing(
    agents: Agents, rows: Sequence[TokenRow], shared: float, in_flight: int, beside: Beside
) -> tuple[float, ...]:
    """Seconds for each of what `_made` counts."""
    engine, servers = agents.engine, len(agents.wires)
    seen: list[tuple[Made, float]] = []
    try:
        while not seen or not beside.enough("drawing"):
            for numbers in waves(len(rows), in_flight, servers):
                await engine.drop_caches()  # a prompt of an earlier wave, or of an earlier forecast, would cost nothing
                wave = [rows[number % len(rows)] for number in numbers]
                common = shared if len(wave) > servers else 0.0  # of those that go to one server
                found = await held(engine, wave, common, partial(_made, servers))
                seen += [(made, wall) for made, _, wall in found]
                for number in range(len(wave)):
                    engine.release(f"{number:06d}")
    except InfraFault as fault:
        raise MuarlError(
            "no server answers any more",
            where=", ".join(wire.address.url for wire in agents.wires),
            why=str(fault),
            next_step="start them again (muarl serve MODEL) and repeat the command",
            code=ExitCode.UNAVAILABLE,
        ) from fault
    finally:
        await agents.close()
    return fitted(seen)


def _made(servers: int, rows: Sequence[tuple[float, int, int]]) -> Made:
    """Of turns that begin together, dealt to equal servers: steps of decoding, and for one server rows in all of them,
    tokens that are new to it, tokens that it has read before, and turns; (tokens known, fed, drawn) each."""
    known, fed, drawn = (float(sum(column)) / servers for column in zip(*rows, strict=True))
    return (float(max(row[2] for row in rows)), drawn, fed, known, len(rows) / servers)


def delivery_of(policy: Policy, model: Any, checking: float) -> Delivery:
    """What it takes to write the weights of `model`, or of its adapter, to read them, and to check (`checking` seconds)
    what servers compute with them."""
    from safetensors.torch import load_file

    from muarl_cli.engines.canary import canary_of

    taken = []
    for _ in range(2):  # the first one allocates
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            canary_of(model, policy.dtype)
            model.save_pretrained(folder)
            written = time.perf_counter()
            for file in Path(folder).glob("*.safetensors"):
                load_file(file)
            taken.append((written - begun, time.perf_counter() - written))
    write, load = taken[-1]
    adapter = hasattr(model, "peft_config")
    return Delivery(write + checking, 0.0 if adapter else load, not adapter)
