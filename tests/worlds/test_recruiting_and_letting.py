"""The recruiting desk and the letting agency: their policies decide, and reading is enough to decide by them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.policy_readers import letting_allows, recruiting_allows

from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.scenario import Task

Reader = Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]
READERS: dict[str, Reader] = {"job_application": recruiting_allows, "rental": letting_allows}
each_desk = pytest.mark.parametrize("name", READERS)


def every_goal(domain: Domain) -> Iterator[tuple[Task, Goal]]:
    for split in domain.splits():
        for task in domain.tasks(split):
            for goal in goals_of(task.brief):
                yield task, goal


def seen_by(domain: Domain, task: Task, goal: Goal) -> Any:
    """What the read before the write answers."""
    intent = domain.language.intents[goal.intent]
    found = domain.world(task).run(intent.read, {name: goal.slots[name] for name in intent.read_arguments})
    assert found.ok, (task.id, found.text)
    return json.loads(found.text)


def reason_of(goal: Goal) -> str:
    """Why it is refused, without the values of the request, and without numbers and days."""
    text = goal.refused
    for value in goal.slots.values():
        text = text.replace(str(value), "...")
    return re.sub(r"\d[\d-]*", "...", text)


@each_desk
def test_whoever_reads_the_policy_and_the_record_knows_what_is_refused(name: str) -> None:
    domain, allows = builtin(name), READERS[name]
    judged: Counter[bool] = Counter()
    for task, goal in every_goal(domain):
        seen = seen_by(domain, task, goal)
        for wish in (goal.slots, goal.final):
            assert allows(goal.intent, wish, seen) == (not goal.refused), (task.id, goal, seen)
        judged[bool(goal.refused)] += 1
    assert judged[True] > 300 and judged[False] > 3000


@each_desk
def test_of_two_requests_in_the_same_words_the_record_allows_one(name: str) -> None:
    """The user opens both in the same words: which write is right is for the policy to say."""
    domain, allows = builtin(name), READERS[name]
    decided: Counter[str] = Counter()
    for task, goal in every_goal(domain):
        intent = domain.language.intents[goal.intent]
        for rival in domain.language.rivals(intent):
            assert not allows(rival.name, goal.slots, seen_by(domain, task, goal)), (task.id, goal)
            decided[intent.name] += not goal.refused
    assert len(decided) == 4 and all(count >= 50 for count in decided.values())


@each_desk
def test_refusals_have_many_reasons_and_none_of_them_is_most(name: str) -> None:
    reasons = Counter(reason_of(goal) for _, goal in every_goal(builtin(name)) if goal.refused)
    assert len(reasons) >= 20
    assert max(reasons.values()) <= 0.25 * sum(reasons.values())


def test_nothing_but_the_policy_keeps_an_agent_from_setting_a_status_by_hand() -> None:
    domain = builtin("job_application")
    number, application = next(iter(domain._tables["applications"].items()))
    world = domain.world(domain.tasks("test")[0])
    status = "offer" if application["status"] != "offer" else "rejected"
    assert world.run("override_status", {"application_id": number, "status": status}).ok
    assert world.store.get("applications", number)["status"] == status


@pytest.mark.parametrize("name", BUILTIN)
@given(data=st.data())
def test_a_refused_call_changes_nothing_and_a_write_names_what_it_changed(name: str, data: st.DataObject) -> None:
    """Whatever writes came before: those of other tasks, and the same ones again."""
    domain = builtin(name)
    tasks = domain.tasks("test")
    world = domain.world(tasks[0])
    for _ in range(8):
        task = data.draw(st.sampled_from(tasks))
        goal = data.draw(st.sampled_from(goals_of(task.brief)))
        intent = domain.language.intents[goal.intent]
        before = world.fingerprint()
        result = world.run(intent.write, domain.language.write_call(intent, goal.slots))
        assert result.ok == bool(result.writes) == (world.fingerprint() != before)
