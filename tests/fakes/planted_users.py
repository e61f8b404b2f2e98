"""A clean log of the scripted user, and bugs of simulators planted into it: what an audit must find.

Each plant takes the clean episodes and returns them with one bug, as a simulator that has it would have left them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End, Episode
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.limits import Limits
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.play import play as play_job
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.facts import FactBook, Facts
from muarl_cli.worlds.domain import builtin
from muarl_cli.worlds.language import value_text

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)
BOOK = FactBook()
_RECORD = re.compile(r"(order|loan|reservation) \d{4}")


def clean(
    name: str = "retail", tasks: int = 30, trials: int = 3, injectors: dict[str, float] | None = None
) -> list[Episode]:
    """Episodes of the careful agent with the scripted user on the dev split."""
    domain = builtin(name)
    agents, users = ScriptedAgents(domain.language, Manner.CAREFUL), AgendaUsers(domain.language, injectors)
    jobs = [
        job("planted", "rollout", 0, domain, task, trial, 5)
        for task in domain.tasks("dev")[:tasks]
        for trial in range(trials)
    ]
    return [asyncio.run(play_job(each, agents, users, LIMITS)) for each in jobs]


def facts_of(episode: Episode) -> Facts:
    found = BOOK.of(episode)
    assert isinstance(found, Facts)
    return found


def user_turns(episode: Episode) -> list[Event]:
    return [e for e in episode.events if e.actor is Actor.USER and e.kind is Kind.SAY]


def with_text(episode: Episode, i: int, text: str, tags: tuple[str, ...] | None = None) -> Episode:
    """The episode with another text (and other tags) in event `i`."""
    events = [replace(e, text=text, tags=e.tags if tags is None else tags) if e.i == i else e for e in episode.events]
    return replace(episode, events=tuple(events))


def cut(episode: Episode, i: int, text: str) -> Episode:
    """The episode in which the user says `text` in event `i` and stops."""
    events = [*episode.events[:i], replace(episode.events[i], text=text, tags=())]
    events.append(Event(i + 1, Actor.RUNNER, Kind.END, EndReason.USER_STOP.value))
    return replace(episode, events=tuple(events), end=End(EndReason.USER_STOP))


def opening(episode: Episode, more: str) -> Episode:
    first = user_turns(episode)[0]
    return with_text(episode, first.i, f"{first.text} {more}")


def _each(change: Callable[[Episode], Episode | None]) -> Callable[[Sequence[Episode]], list[Episode]]:
    """Change what can be changed; None leaves an episode alone. Something must have changed."""

    def plant(episodes: Sequence[Episode]) -> list[Episode]:
        changed = [change(episode) for episode in episodes]
        assert any(changed), "the bug fits no episode"
        return [new or old for new, old in zip(changed, episodes, strict=True)]

    return plant


def _unknown(episode: Episode) -> Episode | None:
    hidden = sorted(facts_of(episode).hidden())
    return opening(episode, f"it is {hidden[0]}.") if hidden else None


def _leak(episode: Episode) -> Episode | None:
    """A fact of the second request that nobody asked for, told with the first."""
    facts = facts_of(episode)
    assert facts.language
    for goal in facts.goals[1:]:
        for slot in facts.language.intents[goal.intent].slots:
            value = value_text(goal.slots[slot])
            others = {value_text(v) for v in facts.goals[0].slots.values()}
            if slot not in goal.unknown and slot not in goal.tell_first and value not in others and len(value) > 3:
                return opening(episode, facts.language.slots[slot].tell[0].format(v=value))
    return None


def _dropped_request(episode: Episode) -> Episode | None:
    facts = facts_of(episode)
    assert facts.language
    if len(facts.goals) < 2:
        return None
    lines = facts.language.intents[facts.goals[1].intent].open
    at = next((e.i for e in user_turns(episode)[1:] if any(line in e.text for line in lines)), None)
    return None if at is None else cut(episode, at, "no, that is all. thanks.")


def _stop_with_consent(episode: Episode) -> Episode | None:
    language = facts_of(episode).language
    assert language
    at = next((e.i for e in user_turns(episode) if e.text in language.phrases["agree"]), None)
    return None if at is None else cut(episode, at, episode.events[at].text)


def _thanks_for_ever(episode: Episode) -> Episode | None:
    if (
        episode.reward != 1
        or episode.end.reason is not EndReason.USER_STOP
        or episode.state.gold == episode.state.initial
    ):
        return None
    events = list(episode.events[:-1])
    for _ in range(6):
        events.append(Event(len(events), Actor.AGENT, Kind.SAY, "you are welcome. anything else?"))
        events.append(Event(len(events), Actor.USER, Kind.SAY, "thank you so much!"))
    events.append(Event(len(events), Actor.RUNNER, Kind.END, EndReason.LIMIT_AGENT.value))
    return replace(episode, events=tuple(events), end=End(EndReason.LIMIT_AGENT, "30 counted turns"))


def _other_value(episode: Episode) -> Episode | None:
    """A second value of a fact, which the task never plans."""
    facts = facts_of(episode)
    assert facts.language
    for goal in facts.goals:
        for slot in goal.slots:
            mine = {value_text(r[slot]).lower() for g in facts.goals for r in (g.slots, g.final) if slot in r}
            rest = sorted(facts.vocabulary.by_slot.get(slot, frozenset()) - mine)
            if rest:
                last = user_turns(episode)[-1]
                return with_text(
                    episode, last.i, facts.language.slots[slot].tell[0].format(v=rest[0]) + " " + last.text
                )
    return None


def _copies(episode: Episode) -> Episode:
    copied = opening(episode, facts_of(episode).instruction.splitlines()[0])
    return replace(copied, user={**episode.user, "backend": "llm"})


def _parrot(episode: Episode) -> Episode:
    for event in user_turns(episode):
        episode = with_text(episode, event.i, "please please please")
    return episode


def _same_openings(episodes: Sequence[Episode]) -> list[Episode]:
    first: dict[str, str] = {}
    for episode in episodes:
        first.setdefault(episode.task_hash, user_turns(episode)[0].text)
    return [with_text(e, user_turns(e)[0].i, first[e.task_hash]) for e in episodes]


def _forgets_change(episode: Episode) -> Episode | None:
    language = facts_of(episode).language
    assert language
    at = next((e.i for e in user_turns(episode) if "inject:mind_change" in e.tags), None)
    return None if at is None else with_text(episode, at, language.phrases["agree"][0], ())


def _false_consent(episode: Episode) -> Episode | None:
    """The agent proposes another order than the one the user has in mind, and the user says yes."""
    facts = facts_of(episode)
    assert facts.language
    for event in user_turns(episode):
        before = episode.events[event.i - 1]
        if event.text in facts.language.phrases["agree"] and _RECORD.search(before.text):
            return with_text(episode, before.i, _RECORD.sub(r"\1 0000", before.text))
    return None


def _other_word(episode: Episode) -> Episode:
    last = user_turns(episode)[-1]
    return with_text(episode, last.i, last.text + "!")


PLANTS: dict[str, Callable[[Sequence[Episode]], list[Episode]]] = {
    "S1": _each(lambda e: opening(e, "my phone number is 5550199.")),
    "S2": _each(_unknown),
    "S3": _each(_leak),
    "S4": _each(_dropped_request),
    "S5": _each(_stop_with_consent),
    "S6": _each(_thanks_for_ever),
    "S7": _each(lambda e: opening(e, "How can I help you today?")),
    "S8": _each(_other_value),
    "S9": _each(_copies),
    "S10": _each(_parrot),
    "S11b": _same_openings,
    "S13": _each(_forgets_change),
    "S14": _each(_false_consent),
    "S15": _each(_other_word),
}
"""by the metric that has to find the bug"""
