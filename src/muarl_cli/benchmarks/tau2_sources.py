"""Which TAU2 a task set comes from: an upstream checkout where one is named, else the registry package."""

from __future__ import annotations

from muarl_cli.benchmarks.checkouts import python_of, root_of, server_of
from muarl_cli.worlds.scenario import Scenario


def tau2_source(domain: str) -> Scenario:
    """The scenario of a TAU2 domain; raises `MuarlError` for an unknown domain, or where nothing serves it."""
    root = root_of("tau2")
    if root is not None:
        from muarl_cli.benchmarks.tau2_upstream import upstream_scenario

        return upstream_scenario(domain, server_of("tau2", root, python_of("tau2")))
    from muarl_cli.benchmarks.tau2 import tau2_scenario

    return tau2_scenario(domain)
