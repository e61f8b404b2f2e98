"""An agent that follows nothing, as a factory: random tools with half-right arguments, and random words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.protocols import AgentTurn, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.play import play as play_job
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import value_text
from muarl_cli.worlds.scenario import Task

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)
ODD = ("", "?", "goodbye!", "###STOP###", "have a nice day", "is that right?", "it has been done.")


class RandomAgents:
    """Opens random agents; they know the user's goals, and get them wrong at random."""

    info: Mapping[str, Any] = {"kind": "random", "model": "", "revision": "", "weight_version": ""}

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def open(self, stage: Stage, task: Task) -> RandomSession:
        return RandomSession(self.domain, goals_of(task.brief), stage.seed)


class RandomSession:
    """One random agent. `place` tells which goal is open; it then mostly talks about that one."""

    def __init__(
        self, domain: Domain, goals: Sequence[Goal], seed: int, place: Callable[[], int] | None = None
    ) -> None:
        self.domain, self.goals, self.rng, self.calls = domain, goals, random.Random(seed), 0
        self.place = place
        phrases = domain.language.phrases
        self.lines = [*(line for options in phrases.values() for line in options), *list(phrases["confirm"]) * 30, *ODD]

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        if self.rng.random() < 0.35:
            self.calls += 1
            return AgentTurn(calls=(ToolCall(f"c{self.calls}", *self._call()),))
        return AgentTurn(self._words())

    def _value(self) -> object:
        goal = self.rng.choice(self.goals)
        return self.rng.choice([*goal.slots.values(), *goal.final.values(), "0000", "purple", 7])

    def _call(self) -> tuple[str, dict[str, object]]:
        goal = self.rng.choice(self.goals)
        intent = self.domain.language.intents[goal.intent]
        if self.rng.random() < 0.5:
            row = goal.final if self.rng.random() < 0.5 else goal.slots
            return intent.write, self.domain.language.write_call(intent, row)
        tool = self.rng.choice([t for t in self.domain.tools if t.klass is not ToolClass.TERMINAL])
        return tool.name, {name: self._value() for name in tool.parameters["properties"]}

    def _words(self) -> str:
        language = self.domain.language
        at_hand = self.place is not None and self.rng.random() < 0.8
        goal = self.goals[self.place()] if self.place and at_hand else self.rng.choice(self.goals)
        intent = language.intents[goal.intent]
        row = {name: self._value() if self.rng.random() < 0.1 else value for name, value in goal.final.items()}
        row |= goal.slots if self.rng.random() < 0.3 else {}
        words = {
            "propose": language.fill(intent.propose, row),
            "done": language.fill(intent.done, row),
            "refuse": language.fill(intent.refuse or "no", row),
            "slots": language.slots[self.rng.choice(intent.slots)].words,
            "goal": "",
            "facts": value_text(self._value()),
        }
        return " ".join(self.rng.choice(self.lines).format(**words) for _ in range(self.rng.choice((1, 1, 1, 2))))

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        return None


def episodes(domain: Domain, count: int, rates: Mapping[str, float], first: int = 0) -> Iterator[Episode]:
    """`count` episodes of random agents with the scripted user, over the test split."""
    agents, users = RandomAgents(domain), AgendaUsers(domain.language, rates)
    tasks = domain.tasks("test")

    async def some(numbers: range) -> list[Episode]:
        jobs = [job("random", "rollout", 0, domain, tasks[n % len(tasks)], n, 3) for n in numbers]
        return [await play_job(each, agents, users, LIMITS) for each in jobs]

    for start in range(first, first + count, 200):
        yield from asyncio.run(some(range(start, min(start + 200, first + count))))
