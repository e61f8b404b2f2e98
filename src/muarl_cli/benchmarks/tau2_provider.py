"""TAU2 for `muarl bench`: the registry package, and a checkout where one is named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from muarl_cli.benchmarks.checkouts import CLONE, root_of
from muarl_cli.benchmarks.provider import GoldCount, Provider, Status
from muarl_cli.benchmarks.tau2_package import INSTALL

SPLIT = "base"
"""the whole leaderboard set, of which train and test are parts"""


def status() -> Status:
    present, missing, how = [], [], []
    try:
        present.append(f"inspect-evals {metadata.version('inspect-evals')}")
    except metadata.PackageNotFoundError:
        missing.append("inspect-evals")
        how.append(INSTALL)
    root = root_of("tau2")
    if root is not None:
        present.append(f"checkout {root.name}")
    else:
        missing.append("checkout (only for leaderboard runs)")
        how.append(f"{CLONE['tau2']}; MUARL_TAU2_ROOT, MUARL_TAU2_PYTHON")
    return Status(tuple(present), tuple(missing), tuple(how))


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    from muarl_cli.benchmarks.gold import gold_count
    from muarl_cli.benchmarks.tau2_sources import tau2_source

    return {SPLIT: gold_count(tau2_source(domain), SPLIT)}


PROVIDER = Provider(
    "tau2",
    ("retail", "airline", "telecom"),
    ("train", "test", "base"),
    status,
    gold_check,
    note="telecom has the splits small and full as well; its users have tools of their own",
)
