"""What an episode is worth to the trainer, from its log: the outcome, a share of its task's criteria, or layered gates.

A criterion is a checkable statement about the calls, the messages or the end state. A task may declare its own in
`extra["criteria"]`; otherwise they follow from its gold: each gold write took effect, what must be said was said, it
was handed over if and only if it had to be, and nothing else was changed. Each weighs the same, and the reward is the
share that holds. Invariants: an invalid episode has no reward (None, never 0); one that ended at a limit of the agent
has 0; the rewards of an episode's turns add up to its reward.

    criteria:
      - {call: cancel_order, arguments: {order_id: "48213"}}   # took effect, with at least these arguments
      - {no_call: transfer_to_human_agents}                    # never succeeded
      - {said: "129.50"}                                       # affirmed in a message that the user heard
      - {state: gold}                                          # the end state is the gold one
      - {nothing_else: true}                                   # no write took effect but those of the call criteria
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical_json
from muarl_cli.scoring.findings import Layer, Verdict
from muarl_cli.scoring.layers import judge
from muarl_cli.scoring.trace import Step, Trace, read
from muarl_cli.scoring.values import affirmed
from muarl_cli.worlds.scenario import Scenario, Task

TRANSFER = "transfer_to_human_agents"
_KINDS = ("call", "no_call", "said", "state", "nothing_else")


class Reward(StrEnum):
    """What is rewarded."""

    OUTCOME = "outcome"
    """1 for the right end, else 0: the paper's"""
    RUBRIC = "rubric"
    """the share of the task's criteria that hold"""
    GATED = "gated"
    """the outcome, where no rule of the policy and the safety layer was broken on the way; else 0"""


@dataclass(frozen=True)
class Judged:
    """One criterion: whether it held, and at which event that was decided."""

    what: str
    holds: bool
    at: int


def reward_of(kind: Reward | str, episode: Episode, scenario: Scenario, task: Task) -> float | None:
    """The reward of an episode; None where it is invalid, 0 where the agent ran into a limit."""
    if not episode.valid:
        return None
    if not episode.end.reason.graded:
        return 0.0
    match Reward(kind):
        case Reward.OUTCOME:
            return episode.reward
        case Reward.RUBRIC:
            judged = rubric(episode, task)
            return sum(each.holds for each in judged) / len(judged)
        case Reward.GATED:
            layers = judge(episode, scenario, task)
            broken = any(layers.verdict(layer) is Verdict.FAIL for layer in (Layer.POLICY, Layer.SAFETY))
            return 0.0 if broken else episode.reward


def turn_rewards(kind: Reward | str, episode: Episode, scenario: Scenario, task: Task) -> tuple[float, ...] | None:
    """What each agent turn earned; None for an invalid episode. With a rubric, a criterion pays at the turn that
    decided it; any other reward comes with the last turn. An episode in which the agent never moved has no turns."""
    turns = agent_turns(episode.events)
    whole = reward_of(kind, episode, scenario, task)
    if whole is None:
        return None
    earned = [0.0] * len(turns)
    if turns and Reward(kind) is Reward.RUBRIC and episode.end.reason.graded:
        judged = rubric(episode, task)
        for each in judged:
            number = sum(1 for start in turns if start <= each.at) - 1
            earned[max(0, number)] += each.holds / len(judged)
    elif turns:
        earned[-1] = whole
    return tuple(earned)


def agent_turns(events: Sequence[Event]) -> list[int]:
    """The index of the first event of each agent turn; a turn is what was sampled in one go."""
    starts: list[int] = []
    beside = False
    for event in events:
        if event.actor is not Actor.AGENT or event.kind not in (Kind.SAY, Kind.CALL) or "greeting" in event.tags:
            continue
        if not (beside and event.kind is Kind.CALL) and "same_turn" not in event.tags:
            starts.append(event.i)
        beside = "beside_calls" in event.tags
    return starts


def rubric(episode: Episode, task: Task) -> list[Judged]:
    """Every criterion of the task on this episode; raises `MuarlError` for a criterion of no known form."""
    trace = read(episode.events)
    criteria = list(task.extra.get("criteria", ())) or derived_criteria(task)
    return [_judged(each, criteria, trace, episode) for each in criteria]


def derived_criteria(task: Task) -> list[dict[str, Any]]:
    """What the gold of a task asks for."""
    writes = [{"call": call.name, "arguments": dict(call.arguments)} for call in task.gold_writes]
    wanted = any(call.name == TRANSFER for call in task.gold)
    handed = {"call" if wanted else "no_call": TRANSFER}
    return [*writes, *({"said": text} for text in task.communicate), handed, {"nothing_else": True}]


def _judged(
    criterion: Mapping[str, Any], criteria: Sequence[Mapping[str, Any]], trace: Trace, episode: Episode
) -> Judged:
    last = max(0, trace.length - 1)
    match criterion:
        case {"call": name, **others}:
            made = [step for step in trace.steps if _fits(step, name, others.get("arguments", {}))]
            return Judged(f"call {name}", bool(made), made[0].answer_at if made else last)
        case {"no_call": name}:
            made = [step for step in trace.steps if step.name == name and step.ok]
            return Judged(f"no call {name}", not made, made[0].at if made else last)
        case {"said": text}:
            lines = [line for line in trace.agent if affirmed(text, line.text)]
            return Judged(f"said {text!r}", bool(lines), lines[0].at if lines else last)
        case {"state": "gold"}:
            return Judged("state", episode.state.final == episode.state.gold, last)
        case {"nothing_else": True}:
            asked = [each for each in criteria if "call" in each]
            foreign = [
                step
                for step in trace.writes
                if not any(_fits(step, each["call"], each.get("arguments", {})) for each in asked)
            ]
            return Judged("nothing else", not foreign, foreign[0].answer_at if foreign else last)
    raise MuarlError(
        "a task's criterion has no known form",
        where=f"task {episode.task_id}: {criterion!r}",
        next_step=f"one of the keys {', '.join(_KINDS)}; see scoring/rewards.py",
        code=ExitCode.BAD_DATA,
    )


def _fits(step: Step, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call took effect with at least these arguments."""
    done = step.effective if step.klass is ToolClass.WRITE else bool(step.ok)
    return (
        done
        and step.name == name
        and all(
            key in step.arguments and canonical_json(step.arguments[key]) == canonical_json(value)
            for key, value in arguments.items()
        )
    )
