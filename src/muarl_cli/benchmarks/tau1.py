"""TAU1 from an upstream checkout: its tools, its tasks and its own reward, behind a world server.

Handing over ends the episode at once, as its environment has it. Two things differ from its own runner: the agent sees
the greeting that upstream shows to the user alone, and all calls of a turn are carried out, not only the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from muarl_cli.benchmarks.checkouts import required_server
from muarl_cli.benchmarks.official_limits import tau1_limits
from muarl_cli.benchmarks.served import ServedScenario
from muarl_cli.benchmarks.tau2_domains import AIRLINE, CALCULATE, HANDOVER, RETAIL
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.errors import ExitCode, MuarlError

DOMAINS = ("retail", "airline")
_WRITES = RETAIL.agent.writes | AIRLINE.agent.writes
"""TAU2 kept the names"""
_GENERIC = frozenset({CALCULATE, "think"})


def tau1_scenario(domain: str) -> ServedScenario:
    """The scenario of a TAU1 domain; raises `MuarlError` for an unknown domain or where no checkout is named."""
    if domain not in DOMAINS:
        raise MuarlError(
            f"unknown TAU1 domain {domain!r}", next_step=f"one of: {', '.join(DOMAINS)}", code=ExitCode.USAGE
        )
    return _scenario(domain, required_server("tau1"))


@lru_cache(maxsize=8)
def _scenario(domain: str, server: Any) -> ServedScenario:
    return Tau1Scenario("tau1", domain, server, class_of)


class Tau1Scenario(ServedScenario):
    """A domain of the checkout."""

    def official_limits(self, limits: Limits) -> Limits:
        """Those of the benchmark's own runner."""
        return tau1_limits(limits)


def class_of(tool: Mapping[str, Any]) -> ToolClass:
    """What a tool may do to the state."""
    name = str(tool["name"])
    if name == HANDOVER:
        return ToolClass.TERMINAL
    if name in _WRITES:
        return ToolClass.WRITE
    return ToolClass.GENERIC if name in _GENERIC else ToolClass.READ
