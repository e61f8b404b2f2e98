"""TAU2's reward, as upstream computes it on the package's revision: the product over a task's bases.

DB: the end state equals that of the gold calls. ENV_ASSERTION: what the task asserts of its environment holds. ACTION:
each gold call was made by somebody. COMMUNICATE: each required text was said by the agent. NL_ASSERTION needs a judge:
without one it is reported as null and never counts as passed. Invariant: an episode that ended in a way that is not
graded has reward 0, whatever its state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.worlds.scenario import GoldCall, Task

DEFAULT_BASES = ("DB", "COMMUNICATE")
"""what upstream multiplies where a task names no bases"""


def missing_texts(required: Sequence[str], events: Sequence[Event]) -> tuple[str, ...]:
    """Which required texts no single message of the agent contains. Upstream's rule: case is ignored and commas are
    taken out of the message only, so a required text that has a comma can never be found."""
    said = [
        event.text.lower().replace(",", "") for event in events if event.actor is Actor.AGENT and event.kind is Kind.SAY
    ]
    return tuple(text for text in required if not any(text.lower() in message for message in said))


def missing_calls(task: Task, events: Sequence[Event]) -> tuple[GoldCall, ...]:
    """Which gold calls nobody made. Upstream's rule: who made it does not matter, and of the arguments those count
    that the task names for comparison, else those that the *call* has, so that a call which omits some matches."""
    made = [e.call for e in events if e.kind is Kind.CALL and e.call is not None and e.call.arguments is not None]
    compared = task.extra.get("compare") or (None,) * len(task.gold)
    return tuple(
        gold
        for gold, names in zip(task.gold, compared, strict=True)
        if not any(_matches(gold, names, call) for call in made)
    )


def _matches(gold: GoldCall, names: Sequence[str] | None, call: CallRecord) -> bool:
    arguments = call.arguments or {}
    if gold.name != call.name:
        return False
    compared = arguments.keys() if names is None else names
    return {k: v for k, v in arguments.items() if k in compared} == {
        k: v for k, v in gold.arguments.items() if k in compared
    }


def grade(
    task: Task, events: Sequence[Event], *, same_state: bool, assertions: Sequence[bool], keep_outputs: bool
) -> tuple[float, dict[str, Any]]:
    """(reward, detail) of a finished conversation. `assertions` says which of the task's hold; without `keep_outputs`
    what must be said does not count. `detail.completion` is the share of all single criteria that are met (over a
    domain: the paper's task completion rate)."""
    missing, undone = missing_texts(task.communicate, events), missing_calls(task, events)
    found: Mapping[str, tuple[bool, Sequence[bool]]] = {
        "db": (same_state, [same_state]),
        "env_assertion": (all(assertions), assertions),
        "action": (not undone, [call not in undone for call in task.gold]),
        "communicate": (not missing, [text not in missing for text in task.communicate]),
    }
    bases = [base for base in task.bases if keep_outputs or base != "communicate"]
    judged = {base: found[base][0] if base in found else None for base in bases}
    criteria = [met for base in bases if base in found for met in found[base][1]]
    words = task.extra.get("nl_assertions") or ()
    reason = end_reason(events)
    graded = reason is None or reason.graded
    reward = float(graded and all(passed is not False for passed in judged.values()))
    return reward, {
        "bases": judged,
        "missing": list(missing),
        "missing_calls": [call.name for call in undone] if "action" in bases else [],
        "unjudged": sorted(base for base, passed in judged.items() if passed is None),
        "nl_assertions": {"count": len(words), "passed": None},
        "completion": sum(criteria) / len(criteria) if criteria and graded else float(reward),
        "graded": graded,
    }


def end_reason(events: Sequence[Event]) -> EndReason | None:
    """Why the conversation ended, None where it did not yet."""
    ends = [event.text for event in events if event.kind is Kind.END]
    return EndReason(ends[-1]) if ends else None
