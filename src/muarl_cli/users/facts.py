"""What the user of an episode knows and wants, looked up again from the scenario that its log line names.

Invariant: facts come from the task with the episode's own task hash or not at all; a scenario that changed since, or is
not installed, has none, and says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.errors import MuarlError
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.goals import Goal, goal_from, goals_of
from muarl_cli.worlds.language import Language, said, value_text
from muarl_cli.worlds.scenario import Scenario, Task

SEEN, SEEN_SPLIT = "goals", "train"
"""where an imported chat's log line holds what was read off it, and the split that has the scenario's values"""
ENOUGH_TASKS = 300
"""tasks of a split from which the values of a domain are collected"""


@dataclass(frozen=True)
class Vocabulary:
    """The values that occur in a domain's tasks, numbers left out, and those that one slot alone has."""

    words: frozenset[str]
    by_slot: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, language: Language, scenario: Scenario, split: str) -> Vocabulary:
        """Collected from the tasks of a split; a value that users say whatever they want is none."""
        found: dict[str, set[str]] = defaultdict(set)
        common = _common_words(language)
        for task in scenario.tasks(split)[:ENOUGH_TASKS]:
            for goal in goals_of(task.brief):
                for row in (goal.slots, goal.final):
                    for slot, value in row.items():
                        text = value_text(value)
                        if not text.isdigit() and not said(text, common):
                            found[slot].add(text.lower())
        owners: dict[str, set[str]] = defaultdict(set)
        for slot, values in found.items():
            for value in values:
                owners[value].add(slot)
        own = {slot: frozenset(v for v in values if len(owners[v]) == 1) for slot, values in found.items()}
        return cls(frozenset(owners), own)

    def values_in(self, text: str) -> list[str]:
        lowered = text.lower()
        return sorted(value for value in self.words if value in lowered and said(value, lowered))


def _common_words(language: Language) -> str:
    """All the words that a user may say whatever the goal."""
    lines = [line for options in language.phrases.values() for line in options]
    lines += [line for options in language.injections.values() for line in options]
    lines += [line for intent in language.intents.values() for line in intent.open]
    lines += [line for slot in language.slots.values() for line in (*slot.tell, *slot.change, *slot.dont_know)]
    return " ".join(lines).lower()


@dataclass(frozen=True)
class Facts:
    """The user's side of a task."""

    instruction: str
    """the brief in words"""
    task: Task | None
    """None where the facts were read off the conversation itself"""
    language: Language | None = None
    """None where the scenario has no table of slots; what follows is then empty"""
    goals: tuple[Goal, ...] = ()
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(frozenset(), {}))

    def known(self) -> str:
        """All values that the user may say, as one text in lower case: first and final ones, and what they know instead
        of the unknown ones."""
        parts: list[Any] = []
        for goal in self.goals:
            for row in (goal.slots, goal.final):
                parts += [value_text(value) for slot, value in row.items() if slot not in goal.unknown]
            parts += list(goal.unknown.values())
        return " | ".join(parts).lower()

    def hidden(self) -> frozenset[str]:
        """Values that the user does not know."""
        known = {
            value_text(value)
            for goal in self.goals
            for row in (goal.slots, goal.final)
            for slot, value in row.items()
            if slot not in goal.unknown
        }
        return frozenset(value_text(goal.slots[slot]) for goal in self.goals for slot in goal.unknown) - known


class FactBook:
    """Looks facts up, each scenario and vocabulary once."""

    def __init__(self) -> None:
        self._scenarios: dict[str, Scenario | str] = {}
        self._tasks: dict[tuple[str, str], dict[str, Task]] = {}
        self._vocabularies: dict[tuple[str, str], Vocabulary] = {}

    def of(self, episode: Episode) -> Facts | str:
        """The facts, or the reason why there are none."""
        scenario = self._scenario(episode.scenario)
        if isinstance(scenario, str):
            return scenario
        if SEEN in episode.detail:
            return self._seen(episode, scenario)
        key = (episode.scenario, episode.split)
        if key not in self._tasks:
            try:
                self._tasks[key] = {task.task_hash: task for task in scenario.tasks(episode.split)}
            except MuarlError as error:
                return str(error)
        task = self._tasks[key].get(episode.task_hash)
        if task is None:
            return f"{episode.scenario} has no task with the hash of {episode.task_id} any more"
        instruction = scenario.user_prompt(task)
        language = getattr(scenario, "language", None)
        if language is None:
            return Facts(instruction, task)
        return Facts(instruction, task, language, goals_of(task.brief), self._vocabulary(scenario, *key))

    def _seen(self, episode: Episode, scenario: Scenario) -> Facts | str:
        """The facts of a chat that was held elsewhere, as they were read off it."""
        language = getattr(scenario, "language", None)
        if language is None:
            return f"{episode.scenario} has no table of slots"
        goals = tuple(goal_from(row) for row in episode.detail[SEEN])
        return Facts("", None, language, goals, self._vocabulary(scenario, episode.scenario, SEEN_SPLIT))

    def _vocabulary(self, scenario: Scenario, name: str, split: str) -> Vocabulary:
        if (name, split) not in self._vocabularies:
            self._vocabularies[name, split] = Vocabulary.of(getattr(scenario, "language"), scenario, split)  # noqa: B009
        return self._vocabularies[name, split]

    def scenario(self, episode: Episode) -> Scenario:
        """The scenario of an episode that has facts."""
        found = self._scenario(episode.scenario)
        assert not isinstance(found, str)
        return found

    def _scenario(self, name: str) -> Scenario | str:
        if name not in self._scenarios:
            source, _, rest = name.partition(":")
            try:
                self._scenarios[name] = scenario_of(source, rest)
            except (MuarlError, ModuleNotFoundError) as error:
                self._scenarios[name] = f"{name}: {error}"
        return self._scenarios[name]
