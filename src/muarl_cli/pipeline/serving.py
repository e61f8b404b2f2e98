"""Whether an engine that was started by somebody else serves the model that is named.

A server knows a folder by its name, and answers as gladly with what a training run left in it, or with another folder's
weights; the episodes would be labelled as the original's. Invariant: no conversation is held before the engine was
compared with the folder's canary (`engines/canary.py`), or a line said that there was nothing to compare. What no
rounding accounts for is an error; what another precision could be is a warning, since from outside they look alike.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.canary import LOOSEST, NAME, Canary, read_canary
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.parties import Agents, Talker


def require_served(agents: Agents, folder: Path, talk: Talker) -> None:
    """Ask every engine of `agents` for the canary of the model in `folder`. Raises `MuarlError`, the engines closed,
    where one computes with other weights."""
    canary = read_canary(folder)
    if canary is None:
        talk.say(
            f"not checked that the engine serves {folder}: it has no {NAME} to compare "
            "(`muarl export model` writes a folder that has)"
        )
        return
    try:
        for where, away in asyncio.run(_distances(agents, canary)).items():
            _judge(canary, away, where, folder, talk)
    except BaseException:
        agents.engine.close()
        raise


async def _distances(agents: Agents, canary: Canary) -> dict[str, float]:
    try:
        found: dict[str, float] = await agents.engine.distances(canary)
        return found
    except InfraFault as fault:
        raise MuarlError(
            "the engine does not compute a prompt's log-probabilities",
            where=", ".join(wire.address.url for wire in agents.wires),
            why=str(fault),
            next_step="look at the server's own log: it may serve a model with fewer tokens than the one that is named",
            code=ExitCode.UNAVAILABLE,
        ) from fault
    finally:
        for wire in agents.wires:  # connections belong to this event loop
            await wire.close()


def _judge(canary: Canary, away: float, where: str, folder: Path, talk: Talker) -> None:
    off = f"the log-probabilities of a fixed prompt are off by {away:.4f} on average"
    if not away <= LOOSEST:
        raise MuarlError(
            f"the engine does not compute with the weights of {folder}",
            where=where,
            why=f"{off}, where at most {LOOSEST:g} could be rounding in bf16",
            next_step=f"start it anew with `muarl serve {folder}` (a server that a training run used keeps that run's "
            "last weights), or name the model that it serves",
            code=ExitCode.UNAVAILABLE,
        )
    if away > canary.tolerance:
        talk.warn(
            f"{where}: {off} from those of {folder}, where up to {canary.tolerance:g} is rounding in {canary.dtype}: "
            "it serves the model in another precision, or serves other weights"
        )
    else:
        talk.say(f"{where} answers as {folder} does: {off} (up to {canary.tolerance:g} is rounding in {canary.dtype})")
