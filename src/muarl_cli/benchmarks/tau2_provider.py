"""TAU2 for `muarl bench`: the registry package, and a checkout where one is named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from muarl_cli.benchmarks.checkouts import CLONE, root_of
from muarl_cli.benchmarks.provider import GoldCount, Provider, Status
from muarl_cli.benchmarks.tau2_package import INSTALL

INTERPRETER = (
    "python3.12 -m venv tau2-venv && tau2-venv/bin/pip install -e './tau2-bench[knowledge]' 'pandas<3' && "
    "export MUARL_TAU2_ROOT=$PWD/tau2-bench MUARL_TAU2_PYTHON=$PWD/tau2-venv/bin/python"
)
"""upstream's own packages in an interpreter of their own; pandas 3 makes its metrics count what never ran as failed"""
SPLIT = "base"
"""the whole leaderboard set, of which train and test are parts"""
UNSEEN = {"banking_knowledge": ("task_032", "task_034", "task_096", "task_097")}
"""tasks whose last write upstream does not look at"""
WHY_UNSEEN = (
    "upstream asks only that a call was made, not how often (032, 034), or has no table for the record (096, 097)"
)


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
        how.append(f"{CLONE['tau2']} && {INTERPRETER}")
    return Status(tuple(present), tuple(missing), tuple(how))


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    from muarl_cli.benchmarks.gold import gold_count
    from muarl_cli.benchmarks.tau2_sources import tau2_source

    return {SPLIT: gold_count(tau2_source(domain), SPLIT, unseen=UNSEEN.get(domain, ()), why=WHY_UNSEEN)}


PROVIDER = Provider(
    "tau2",
    ("retail", "airline", "telecom", "banking_knowledge"),
    ("train", "test", "base"),
    status,
    gold_check,
    note="telecom has the splits small and full as well, banking_knowledge only base (the agent searches its documents "
    "with the official grep_only variant); users of both have tools of their own",
)
