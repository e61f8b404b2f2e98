"""US-04: whatever an agent does, the scripted user invents nothing, gives nothing away and drops nothing."""

from __future__ import annotations

import pytest
from fakes.random_agents import episodes

from muarl_cli.users.audit import audit
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN, builtin

EVERYTHING = {injector.value: 0.5 for injector in Injector}
NEVER = ("S1", "S2", "S5", "S7", "S8")


def check(name: str, rates: dict[str, float], count: int) -> None:
    group = audit(episodes(builtin(name), count, rates)).groups[0]
    assert group.episodes == count and group["S1"].n == count and group["S5"].n > count / 10
    assert {metric: group[metric].value for metric in NEVER} == dict.fromkeys(NEVER, 0.0), [
        group[metric].examples for metric in NEVER
    ]
    assert group["S14"].value == 1 and group["S15"].value == 1


@pytest.mark.parametrize("rates", [{}, EVERYTHING], ids=["plain", "injected"])
@pytest.mark.parametrize("name", BUILTIN)
def test_against_random_agents_nothing_is_invented_given_away_or_dropped(name: str, rates: dict[str, float]) -> None:
    check(name, rates, 500)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILTIN)
def test_the_same_over_ten_thousand_episodes(name: str) -> None:
    check(name, {}, 5000)
