"""The scripted user: replays exactly, varies by seed, says nothing untrue, and understands more than its own script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import pytest
from fakes.random_agents import RandomSession
from fakes.talks import play

from muarl_cli.agents.scripted import Manner
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.loop import Transcript
from muarl_cli.users.agenda import AgendaUser
from muarl_cli.worlds.domain import BUILTIN, Domain, builtin
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import said, value_text

each_scenario = pytest.mark.parametrize("name", BUILTIN)
CHANGING = "inject:mind_change"


def dialogue(talk: Transcript) -> str:
    return "\n".join(f"{e.actor} {e.kind} {e.text} {e.call} {e.tags}" for e in talk.events)


# --- US-02, US-03: replay and variety --------------------------------------------------------------------------------


@each_scenario
async def test_the_same_seed_and_agent_give_the_same_dialogue_to_the_byte(name: str) -> None:
    domain = builtin(name)
    tasks = domain.tasks("dev")
    for seed in range(500):
        task = tasks[seed % len(tasks)]
        first, again = [(await play(domain, task, Manner.CAREFUL, seed))[0] for _ in range(2)]
        assert dialogue(first) == dialogue(again)


@each_scenario
async def test_a_hundred_seeds_of_one_task_give_95_distinct_dialogues(name: str) -> None:
    domain = builtin(name)
    for task in domain.tasks("dev")[:12]:
        dialogues = {dialogue((await play(domain, task, Manner.CAREFUL, seed))[0]) for seed in range(100)}
        assert len(dialogues) >= 95, (task.id, task.family)


# --- US-04: nothing untrue, no early stop, no contradiction, whatever the agent does ---------------------------------


@cache
def words_of(name: str) -> str:
    """All the words a user may say whatever the goal."""
    language = builtin(name).language
    words = [line for options in language.phrases.values() for line in options]
    words += [line for intent in language.intents.values() for line in intent.open]
    words += [line for slot in language.slots.values() for line in (*slot.tell, *slot.change, *slot.dont_know)]
    return " ".join(words)


@cache
def vocabulary(name: str) -> tuple[str, ...]:
    """All values that any slot of any test task has."""
    goals = [goal for task in builtin(name).tasks("test") for goal in goals_of(task.brief)]
    values = {value_text(v) for goal in goals for v in goal.final.values() if not isinstance(v, int)}
    return tuple(sorted(v for v in values if not said(v, words_of(name)) and not v.isdigit()))


def ungrounded(domain: Domain, goals: Sequence[Goal], talk: Transcript) -> list[str]:
    """S1: values in user turns that are neither the user's own nor were said or returned before."""
    own = " | ".join(value_text(v) for g in goals for row in (g.slots, g.final, g.unknown) for v in row.values())
    found, heard = [], ""
    for event in talk.events:
        if event.actor is Actor.USER and event.kind is Kind.SAY:
            typed = re.findall(r"\b\d{3,6}\b|\S+@\S+\w", event.text)
            typed += [v for v in vocabulary(domain.name) if v.lower() in event.text.lower() and said(v, event.text)]
            found += [v for v in typed if v not in own and v not in heard]
        heard += event.text
    return found


def voiced_unknown(goals: Sequence[Goal], talk: Transcript) -> list[str]:
    """S2: values of facts that the user does not know."""
    hidden = {value_text(goal.slots[slot]) for goal in goals for slot in goal.unknown}
    words = [e.text for e in talk.events if e.actor is Actor.USER]
    return [value for value in hidden for text in words if said(value, text)]


def contradictions(user: AgendaUser) -> list[str]:
    """S8: a fact told with two values without a scheduled change between them."""
    planned: dict[str, set[str]] = {}
    for place, goal in enumerate(user.goals):
        for slot, value in goal.slots.items():
            planned.setdefault(slot, set()).add(value_text(value))
        if goal.change and place in user.changed:
            planned[goal.change.slot].add(value_text(goal.change.value))
    return [f"{slot}={value}" for slot, value in user.told if value not in planned[slot]]


@each_scenario
async def test_against_a_random_agent_the_user_is_grounded_consistent_and_never_stops_early(name: str) -> None:
    domain = builtin(name)
    tasks = domain.tasks("test")
    endings: dict[str, int] = {}
    agreed = 0
    for number in range(1500):
        task = tasks[number % len(tasks)]
        talk, _, user = await play(
            domain, task, lambda u, n=number: RandomSession(domain, u.goals, n, lambda: u.at), number
        )
        endings[talk.end.reason.value] = endings.get(talk.end.reason.value, 0) + 1
        assert talk.end.reason in (EndReason.USER_STOP, EndReason.LIMIT_AGENT), talk.end
        assert not ungrounded(domain, user.goals, talk), task.id
        assert not voiced_unknown(user.goals, talk), task.id
        assert not contradictions(user), task.id
        if talk.end.reason is EndReason.USER_STOP:  # S5
            last = next(e.text for e in reversed(talk.events) if e.actor is Actor.USER)
            left = last in domain.language.phrases["leave"]
            transferred = last in domain.language.phrases["transferred"]
            assert left or transferred or user.at == len(user.goals), last
            assert not (user.consented and left), task.id
            assert not left or user.patience <= 0
        agreed += untruthful_consent(domain, user.goals, talk)
    assert min(endings.values()) > 10 and len(endings) == 2, f"both endings occur: {endings}"
    assert agreed > 300, "consent is common enough to be judged"


def untruthful_consent(domain: Domain, goals: Sequence[Goal], talk: Transcript) -> int:
    """S14: fails where a yes answers a proposal that names the values of no goal; else how often the user agreed."""
    count = 0
    for before, event in zip(talk.events, talk.events[1:], strict=False):
        if event.actor is Actor.USER and event.text in domain.language.phrases["agree"]:
            count += 1
            rows = [(goal, row) for goal in goals for row in (goal.slots, goal.final)]
            assert any(_names(domain, goal, row, before.text) for goal, row in rows), before.text
    return count


def _names(domain: Domain, goal: Goal, row: Mapping[str, object], words: str) -> bool:
    intent = domain.language.intents[goal.intent]
    shown = [s for s in intent.slots[1:] if "{" + s + "}" in intent.propose and s not in goal.unknown]
    return all(said(row[slot], words) for slot in shown)


@each_scenario
async def test_the_judges_of_the_user_find_planted_faults(name: str) -> None:
    domain = builtin(name)
    task = next(t for t in domain.tasks("test") if any(g.unknown for g in goals_of(t.brief)))
    talk, _, user = await play(domain, task, Manner.CAREFUL)
    hidden = next(value_text(g.slots[s]) for g in user.goals for s in g.unknown)
    lie = Event(0, Actor.USER, Kind.SAY, f"my number is 0007, or {hidden}")
    planted = Transcript(talk.tally, [lie, *talk.events])
    assert ungrounded(domain, user.goals, talk) == [] and "0007" in ungrounded(domain, user.goals, planted)
    assert voiced_unknown(user.goals, talk) == [] and voiced_unknown(user.goals, planted) == [hidden]
    user.told.add((next(iter(user.goals[0].slots)), "0007"))
    assert contradictions(user)
    yes = [
        Event(0, Actor.AGENT, Kind.SAY, "shall i go ahead?"),
        Event(1, Actor.USER, Kind.SAY, domain.language.phrases["agree"][0]),
    ]
    with pytest.raises(AssertionError):
        untruthful_consent(domain, user.goals, Transcript(talk.tally, yes))


@each_scenario
async def test_no_turn_of_a_scripted_agent_is_missed(name: str) -> None:
    domain = builtin(name)
    for manner in Manner:
        for task in domain.tasks("dev"):
            assert (await play(domain, task, manner, 11))[2].misses == 0
