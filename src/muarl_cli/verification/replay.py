"""The logged calls carried out again on a fresh world.

What a log says of the end state and of each answer is believed only where the world says the same: the call of a
changed argument, a forged answer and a write that never was all show here. Invariant: only worlds that answer at once
and the same way every time (they have a `run`) are replayed; others are believed, since their state is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.events import Actor
from muarl_cli.conversation.protocols import ToolResult
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.scoring.trace import Step, read
from muarl_cli.verification.subject import Filter, Reason, Subject
from muarl_cli.worlds.memory import SIMULATED


@dataclass(frozen=True)
class Replayed:
    """The steps of a log, what a fresh world answers to each (None where the call cannot be read), and that world."""

    steps: tuple[tuple[Step, ToolResult | None], ...]
    world: Any


def carry_out(subject: Subject) -> Replayed | None:
    """Carry out the agent's calls again; None where the world cannot be replayed."""
    if subject.task is None or any(e.actor is Actor.USER and e.call for e in subject.episode.events):
        return None
    world = subject.scenario.world(subject.task)
    if not hasattr(world, "run"):
        world.close()
        return None
    toolbox = Toolbox(world.tools)
    return Replayed(tuple((step, _again(world, toolbox, step)) for step in read(subject.episode.events).steps), world)


def _again(world: Any, toolbox: Toolbox, step: Step) -> ToolResult | None:
    if not isinstance(step.arguments, Mapping) or (step.klass is None and toolbox.get(step.name) is not None):
        return None
    problem = toolbox.problem(ToolCall("again", step.name, step.arguments))
    result: ToolResult = ToolResult(f"Error: {problem}", ok=False) if problem else world.run(step.name, step.arguments)
    return result


def won(subject: Subject) -> list[Reason]:
    """The outcome, as it was graded when the conversation ended."""
    if not subject.episode.valid or subject.episode.reward == 1:
        return []
    return [Reason(Filter.STATE, "not_gold", "the end state is not the gold one")]


def state(subject: Subject) -> list[Reason]:
    """The end state is the gold one: by the log, and by carrying out its calls again."""
    episode = subject.episode
    if not episode.valid:
        return []
    if lost := won(subject):
        return lost
    if subject.task is None:
        return [Reason(Filter.STATE, "no_task", f"the task {episode.task_id} is not known here")]
    replayed = subject.replayed
    if replayed is None:
        return []
    outcome = subject.scenario.outcome(subject.task, replayed.world, episode.events)
    if outcome.reward == 1:
        return []
    return [Reason(Filter.STATE, "replay_not_gold", "the logged calls do not lead to the gold state")]


def replay(subject: Subject) -> list[Reason]:
    """The tools answer what the log says they did."""
    if not subject.episode.valid or (replayed := subject.replayed) is None:
        return []
    return [
        Reason(Filter.REPLAY, "other_answer", f"{step.name} answers {again.text[:80]!r}", step.answer_at)
        for step, again in replayed.steps
        if again is not None
        and step.ok is not None
        and SIMULATED not in step.tags
        and (again.ok, again.text) != (step.ok, step.text)
    ]
