"""ACEBench Agent for `muarl bench`: a checkout that a person names."""

from __future__ import annotations

from collections.abc import Mapping

from muarl_cli.benchmarks.acebench_package import CLONE, KINDS, LANGUAGES, VARIABLE, root
from muarl_cli.benchmarks.provider import GoldCount, Provider, Status
from muarl_cli.errors import MuarlError


def status() -> Status:
    try:
        folder = root()
    except MuarlError as error:  # a wrong name is what is missing, and no reason to say nothing of the others
        return Status((), (error.what,), (error.next_step,))
    if folder is not None:
        return Status((f"checkout {folder}",))
    return Status((), ("a checkout",), (f"{CLONE} && export {VARIABLE}=$PWD/ACEBench",))


def gold_check(domain: str) -> Mapping[str, GoldCount]:
    from muarl_cli.benchmarks.acebench import UNSEEN, WHY_UNSEEN, acebench_scenario
    from muarl_cli.benchmarks.gold import gold_count

    scenario = acebench_scenario(domain)
    return {language: gold_count(scenario, language, unseen=UNSEEN, why=WHY_UNSEEN) for language in LANGUAGES}


PROVIDER = Provider(
    "acebench",
    KINDS,
    (*LANGUAGES, *(f"{language}-tools" for language in LANGUAGES)),
    status,
    gold_check,
    note="en and zh in the official prompt manner; en-tools and zh-tools with native tool calls",
)
