"""BFCL for `muarl bench`: an environment a data revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from muarl_cli.benchmarks.bfcl_package import CATEGORIES, VERSIONS, environment
from muarl_cli.benchmarks.provider import GoldCount, Provider, Status


def status() -> Status:
    ready = {split: environment(split) for split in VERSIONS}
    present = tuple(f"{split} ({own.bare[0]})" for split, own in ready.items() if own.ready)
    missing = tuple(f"{split} ({own.bare[0]})" for split, own in ready.items() if not own.ready)
    return Status(present, missing, ("muarl bench install bfcl",) if missing else ())


def install(say: Callable[[str], None]) -> None:
    for split in VERSIONS:
        environment(split).create(say)


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    from muarl_cli.benchmarks.bfcl import UNREACHABLE, WHY_UNREACHABLE, bfcl_scenario
    from muarl_cli.benchmarks.gold import gold_count

    return {
        split: gold_count(bfcl_scenario(domain), split, UNREACHABLE.get(split, ()), why=WHY_UNREACHABLE)
        for split in VERSIONS
        if environment(split).ready
    }


PROVIDER = Provider(
    "bfcl",
    CATEGORIES,
    tuple(VERSIONS),
    status,
    gold_check,
    install,
    note="v3 is the paper's data, v4 the present leaderboard's; parallel is a single-turn category",
)
