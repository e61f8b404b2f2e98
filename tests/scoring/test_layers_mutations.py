"""EV-03: each of twelve edits of a clean conversation breaks exactly the rule it is about, in every scenario."""

from __future__ import annotations

import pytest
from scoring.judged_talks import talk
from scoring.mutations import MUTATIONS, base_for, reindexed

from muarl_cli.scoring.layers import judge
from muarl_cli.worlds.domain import BUILTIN, builtin


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_edit_breaks_exactly_the_intended_rule(name: str, mutation: str) -> None:
    domain = builtin(name)
    edit, rule = MUTATIONS[mutation]
    every = [task for split in ("test", "dev", "train") for task in domain.tasks(split)]
    tasks = base_for(mutation, every, domain)[:5]
    assert tasks, "a scenario without such a task cannot show the rule"
    for task in tasks:
        episode = talk(domain, task, "careful")
        assert judge(episode, domain, task).clean_success
        changed = reindexed(episode, edit(domain, task, list(episode.events)))
        failed = judge(changed, domain, task).failed_rules
        assert len(failed) == 1 and next(iter(failed)).startswith(rule), (task.id, sorted(failed))


def test_there_are_twelve() -> None:
    assert len(MUTATIONS) == 12
