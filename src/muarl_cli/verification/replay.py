"""The logged calls carried out again on a fresh world.

What a log says of the end state and of each answer is believed only where the world says the same: the call of a
changed argument, a forged answer, a forged end state and a write that never was all show here. Worlds that answer at
once (they have a `run`) are replayed in every verification, those on servers where somebody asks for it. Invariant:
what was not replayed is never said to have been.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muarl_cli.conversation.events import Actor
from muarl_cli.conversation.protocols import ToolResult
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.scoring.trace import Step
from muarl_cli.verification.subject import Filter, Reason, Subject
from muarl_cli.worlds.memory import SIMULATED


@dataclass(frozen=True)
class Replayed:
    """The steps of a log, what a fresh world answers to each (None where the call cannot be read), and that world."""

    steps: tuple[tuple[Step, ToolResult | None], ...]
    world: Any


@dataclass(frozen=True)
class Ended:
    """What is left of a world on a server: the mark of its end state."""

    mark: str

    def fingerprint(self) -> str:
        return self.mark


def carry_out(subject: Subject) -> Replayed | None:
    """Carry out the agent's calls again; None where the world cannot be replayed."""
    if subject.task is None or any(e.actor is Actor.USER and e.call for e in subject.episode.events):
        return None
    world = subject.scenario.world(subject.task)
    if not hasattr(world, "run"):
        world.close()
        return None
    toolbox = Toolbox(world.tools)
    steps: list[tuple[Step, ToolResult | None]] = []
    for step in subject.trace.steps:
        call, refused = _call(toolbox, step)
        steps.append((step, refused if call is None else world.run(call.name, call.arguments)))
    return Replayed(tuple(steps), world)


async def carry_out_served(subject: Subject) -> Replayed:
    """The same on a world whose tools are a server's: on a process that holds the initial state. Raises `Fault` where
    the server breaks, `MuarlError` where it does not start."""
    assert subject.task is not None
    world = subject.scenario.world(subject.task)
    try:
        toolbox = Toolbox(world.tools)
        steps: list[tuple[Step, ToolResult | None]] = []
        for step in subject.trace.steps:
            call, refused = _call(toolbox, step)
            steps.append((step, refused if call is None else await world.call(call, "agent")))
        return Replayed(tuple(steps), Ended(await asyncio.to_thread(world.fingerprint)))
    finally:
        world.close()


def _call(toolbox: Toolbox, step: Step) -> tuple[ToolCall | None, ToolResult | None]:
    """(the call of a step, None), or (None, how it is refused unseen: None where it cannot be read)."""
    if not isinstance(step.arguments, Mapping) or (step.klass is None and toolbox.get(step.name) is not None):
        return None, None
    call = ToolCall("again", step.name, step.arguments)
    problem = toolbox.problem(call)
    return (None, ToolResult(f"Error: {problem}", ok=False)) if problem else (call, None)


def won(subject: Subject) -> list[Reason]:
    """The outcome, as it was graded when the conversation ended."""
    if not subject.episode.valid or subject.episode.reward == 1:
        return []
    return [Reason(Filter.STATE, "not_gold", "the end state is not the gold one")]


def state(subject: Subject) -> list[Reason]:
    """The end state is the gold one: by the log, and by carrying out its calls again; and it is the logged one."""
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
    if outcome.reward != 1:
        return [Reason(Filter.STATE, "replay_not_gold", "the logged calls do not lead to the gold state")]
    if not subject.simulated and outcome.state != episode.state:
        return [Reason(Filter.STATE, "replay_not_logged", "the logged calls do not lead to the logged end state")]
    return []


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
