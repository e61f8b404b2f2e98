"""What a run puts around its worlds: faults on purpose, and a guard.

Invariant: without either setting worlds are left as they are, and nothing is wrapped.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.protocols import World
from muarl_cli.hashing import derive_seed
from muarl_cli.pipeline.play import Around, Job
from muarl_cli.scoring.layers import book_of
from muarl_cli.settings.grammar import parse_rates


def around_of(settings: Any) -> Around | None:
    """The wrapper that `world_injectors` and `guard` ask for; None for neither. The guard stands before the faults."""
    rates, guard = parse_rates(settings.world_injectors), settings.guard
    if not rates and not guard:
        return None

    def around(job: Job, world: World) -> World:
        from muarl_cli.worlds.guard import GuardedWorld
        from muarl_cli.worlds.injectors import InjectedWorld

        if rates:
            seed = derive_seed(job.key.seed, "world-injectors")
            world = InjectedWorld(world, rates, seed, lambda: job.scenario.world(job.task))
        return GuardedWorld(world, book_of(job.scenario).rules) if guard else world

    return around
