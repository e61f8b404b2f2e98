"""The words that stand around the values of a goal, and those values, as a user's and an agent's lines are put together
from a scenario's language table.
"""

from __future__ import annotations

from typing import Any

from muarl_cli.worlds.goals import Goal
from muarl_cli.worlds.language import value_text


def words_around(language: Any, goal: Goal) -> list[str]:
    """Every line of the goal's intent, with its slots unfilled."""
    intent = language.intents[goal.intent]
    own = [language.slots[slot] for slot in intent.slots]
    lines = [*intent.open, intent.propose, intent.done, intent.refuse]
    return lines + [words for slot in own for words in (*slot.tell, *slot.change, *slot.dont_know, slot.words)]


def values_said(language: Any, goal: Goal) -> set[str]:
    """The values of the goal, before and after a change of mind, as they are said."""
    slots = language.intents[goal.intent].slots
    return {value_text(value) for row in (goal.slots, goal.final) for slot, value in row.items() if slot in slots}
