"""TAU1 for `muarl bench`: a checkout."""

from __future__ import annotations

from collections.abc import Mapping

from muarl_cli.benchmarks.checkouts import CLONE, root_of
from muarl_cli.benchmarks.provider import GoldCount, Provider, Status
from muarl_cli.benchmarks.tau1 import DOMAINS


def status() -> Status:
    root = root_of("tau1")
    if root is None:
        return Status((), ("checkout",), (f"{CLONE['tau1']}; MUARL_TAU1_ROOT",))
    return Status((f"checkout {root.name}",))


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    from muarl_cli.benchmarks.gold import gold_count
    from muarl_cli.benchmarks.tau1 import tau1_scenario

    scenario = tau1_scenario(domain)
    return {split: gold_count(scenario, split) for split in scenario.splits()}


PROVIDER = Provider(
    "tau1",
    DOMAINS,
    ("train", "test", "dev"),
    status,
    gold_check,
    note="airline has a test split alone; required outputs are dropped in training and checked in evaluation",
)
