"""The recruiting desk and the letting agency: their policies decide, and reading is enough to decide by them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring.judged_talks import talks
from worlds.policy_readers import letting_allows, recruiting_allows

from muarl_cli.conversation.events import CallRecord, Kind, ToolClass
from muarl_cli.scoring.layers import Layer, Verdict, judge
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.scenario import Task

Reader = Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]
READERS: dict[str, Reader] = {"job_application": recruiting_allows, "rental": letting_allows}
RIVALS = {
    "job_application": [("apply", "reserve"), ("withdraw", "turndown")],
    "rental": [("notice", "release"), ("repair", "emergency")],
}
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
        for pair in RIVALS[name]:
            if goal.intent not in pair:
                continue
            one, other = (domain.language.intents[intent] for intent in pair)
            assert (one.open, one.slots, one.read) == (other.open, other.slots, other.read)
            rival = pair[1 - pair.index(goal.intent)]
            seen = seen_by(domain, task, goal)
            assert not allows(rival, goal.slots, seen), (task.id, goal)
            decided[goal.intent] += not goal.refused
    assert all(decided[intent] >= 0.02 * len(domain.tasks("train")) for pair in RIVALS[name] for intent in pair)


@each_desk
def test_who_takes_the_wrong_one_of_two_writes_does_not_reach_the_gold_state(name: str) -> None:
    domain = builtin(name)
    rival = {a: b for pair in RIVALS[name] for a, b in (pair, pair[::-1])}
    tried = 0
    for task in domain.tasks("test"):
        goals = goals_of(task.brief)
        if not any(goal.intent in rival and not goal.refused for goal in goals):
            continue
        world = domain.world(task)
        for goal in goals:
            intent = domain.language.intents[rival.get(goal.intent, goal.intent)]
            if not goal.refused:
                world.run(intent.write, domain.language.write_call(intent, goal.final))
        assert world.fingerprint() != domain.gold_fingerprint(task), task.id
        tried += 1
    assert tried >= 40


@each_desk
def test_refusals_have_many_reasons_and_none_of_them_is_most(name: str) -> None:
    reasons = Counter(reason_of(goal) for _, goal in every_goal(builtin(name)) if goal.refused)
    assert len(reasons) >= 20
    assert max(reasons.values()) <= 0.25 * sum(reasons.values())


def test_a_status_that_is_set_by_hand_is_found_whoever_asked_for_it() -> None:
    domain = builtin("job_application")
    task, episode = next((t, e) for t, e in talks("job_application", "careful") if t.writes)
    number = domain._tables["candidates"][goals_of(task.brief)[0].slots["candidate_id"]]["applications"][0]
    arguments = {"application_id": number, "status": "offer"}
    assert domain.world(task).run("override_status", arguments).ok, "nothing but the policy is in the way"
    at = next(e.i for e in episode.events if e.kind is Kind.CALL and e.call and e.call.klass is ToolClass.WRITE)
    call, answer = episode.events[at : at + 2]
    by_hand = CallRecord("by-hand", "override_status", arguments, ToolClass.WRITE)
    assert answer.call
    done = replace(answer, call=replace(answer.call, id="by-hand", name="override_status"))
    events = [*episode.events[:at], replace(call, call=by_hand), done, *episode.events[at:]]
    changed = replace(episode, events=tuple(replace(e, i=i) for i, e in enumerate(events)))
    assert "no_status_by_hand" not in judge(episode, domain, task).failed_rules
    layered = judge(changed, domain, task)
    assert "no_status_by_hand" in layered.failed_rules
    assert layered.verdict(Layer.SAFETY) is Verdict.FAIL


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
