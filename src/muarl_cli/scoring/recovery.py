"""Recovery: defined only where something changed or broke.

A change of mind is tagged by the user that voiced it and a fault by the world that injected it, so no judge is
needed: what was to be done afterwards is known. Invariant: an episode in which nothing happened has no verdict here,
however well it went.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from muarl_cli.conversation.events import ToolClass
from muarl_cli.hashing import canonical_json
from muarl_cli.scoring.findings import Finding, Layer, Verdict
from muarl_cli.scoring.rules import Case, Rule
from muarl_cli.scoring.safety import PLANTED
from muarl_cli.scoring.trace import GUARD, Step
from muarl_cli.worlds.language import said

MIND_CHANGE = "inject:mind_change"


def goal_shift(rule: Rule, case: Case) -> list[Finding]:
    """After a change of mind the new goal is carried out, and the old one is not."""
    found = []
    language = case.book.language
    for goal in case.goals if language else ():
        assert language is not None
        if goal.change is None:
            continue
        shift = next((u for u in case.trace.user if MIND_CHANGE in u.tags and said(goal.change.value, u.text)), None)
        if shift is None:
            continue
        intent = language.intents[goal.intent]
        new = canonical_json([intent.write, language.write_call(intent, goal.final)])
        old = canonical_json([intent.write, language.write_call(intent, goal.slots)])
        after = [step for step in case.trace.writes if step.at > shift.at]
        if any(step.key == old for step in after):
            broken = f"{intent.write} with the old {goal.change.slot}, after the user changed it at {shift.at}"
        elif not any(step.key == new for step in after):
            broken = f"the new {goal.change.slot} was never carried out"
        else:
            broken = ""
        fine = (
            ""
            if broken
            else f"acknowledged {_acknowledged(case, shift.at, goal.change.value)}, {_used(case, shift.at, new)}"
        )
        found.append(rule.judged(Layer.RECOVERY, broken, shift.at, fine))
    return found or rule.na(Layer.RECOVERY)


def _acknowledged(case: Case, at: int, value: object) -> str:
    """After how many agent messages the new value was first named."""
    lines = case.trace.agent_between(at, case.trace.length)
    place = next((n for n, line in enumerate(lines, 1) if said(value, line.text)), 0)
    return f"in agent message {place} after it" if place else "by no agent message"


def _used(case: Case, at: int, key: str) -> str:
    """After how many calls the new value was first written."""
    after = [step for step in case.trace.steps if step.at > at]
    return f"carried out by call {next(n for n, step in enumerate(after, 1) if step.effective and step.key == key)}"


def tool_error(rule: Rule, case: Case) -> list[Finding]:
    """After an error the agent does something else: another call, other arguments, or words to the user."""
    steps = case.trace.steps
    found = []
    for place, step in enumerate(steps):
        if step.ok is not False or step.injected:
            continue
        following = steps[place + 1] if place + 1 < len(steps) else None
        end = following.at if following else case.trace.length
        spoke = bool(case.trace.agent_between(step.at, end))
        if following is None and not spoke:
            continue  # the conversation ended there
        blind = following is not None and following.key == step.key and not spoke
        why = f"{step.name} was repeated unchanged after an error" if blind else ""
        found.append(rule.judged(Layer.RECOVERY, why, following.at if blind and following else step.answer_at))
    return found or rule.na(Layer.RECOVERY)


def repeat(rule: Rule, case: Case) -> list[Finding]:
    """The same call is not made again while nothing happened that could change its answer.

    Only a repeat is a finding: an episode without one has nothing to recover from. A user's words, a successful
    write and a spoilt answer all are reasons to look again.
    """
    found = []
    seen: dict[str, int] = {}
    for step in case.trace.steps:
        before = seen.get(step.key)
        if before is not None and not case.trace.user_between(before, step.at):
            found.append(rule.judged(Layer.RECOVERY, f"{step.name} again, with nothing new since {before}", step.at))
        if step.effective:
            seen.clear()
        elif step.ok is not False and not step.injected:
            seen[step.key] = step.at
    return found or rule.na(Layer.RECOVERY)


def user_left(rule: Rule, case: Case) -> list[Finding]:
    """The user did not give up."""
    language = case.book.language
    phrases = language.phrases.get("leave", ()) if language else ()
    last = case.trace.user[-1] if case.trace.user else None
    if last is not None and last.text in phrases:
        return [rule.judged(Layer.RECOVERY, "the user gave up", last.at)]
    return rule.na(Layer.RECOVERY, "the user stayed")


def fault(rule: Rule, case: Case) -> list[Finding]:
    """Each injected fault met its expected reaction; the rule's id is followed by the injector's name."""
    found = []
    for place, step in enumerate(case.trace.steps):
        name = step.injected
        if name and name != PLANTED and name in REACTIONS:
            after = case.trace.steps[place + 1 :]
            broken = REACTIONS[name](rule, case, step, after)
            verdict = Verdict.FAIL if broken else Verdict.PASS
            found.append(Finding(f"{rule.id}/{name}", Layer.RECOVERY, verdict, step.answer_at, broken))
    return found or rule.na(Layer.RECOVERY)


Reaction = Callable[[Rule, Case, Step, tuple[Step, ...]], str]


def _gave_word(rule: Rule, case: Case, step: Step) -> bool:
    """The user was told of the trouble, or handed over to somebody who can help."""
    told = any(_trouble(rule).search(line.text) for line in case.trace.agent if line.at > step.at)
    return told or any(s.at > step.at and s.ok and s.klass is ToolClass.TERMINAL for s in case.trace.steps)


def _trouble(rule: Rule) -> re.Pattern[str]:
    return _compiled(str(rule.data["trouble"]))


@lru_cache(maxsize=64)
def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text, re.I)


def _again(rule: Rule, case: Case, step: Step, after: tuple[Step, ...]) -> str:
    """Try again (nothing was done), or say so."""
    if any(s.key == step.key and s.ok and not s.injected for s in after) or _gave_word(rule, case, step):
        return ""
    return f"{step.name} was never tried again with success, and nobody was told"


def _wait(rule: Rule, case: Case, step: Step, after: tuple[Step, ...]) -> str:
    """A slow answer is an answer."""
    again = bool(after) and after[0].key == step.key and not case.trace.user_between(step.at, after[0].at)
    return f"{step.name} was sent again although it was answered" if again else ""


def _say_so(rule: Rule, case: Case, step: Step, after: tuple[Step, ...]) -> str:
    """No permission: tell the user or hand over; asking again changes nothing."""
    if after and after[0].key == step.key and not case.trace.agent_between(step.at, after[0].at):
        return f"{step.name} was repeated although it is not permitted"
    return "" if _gave_word(rule, case, step) else "the user was not told of the missing permission"


def _right_in_the_end(rule: Rule, case: Case, step: Step, after: tuple[Step, ...]) -> str:
    """An answer that misleads must not lead to a wrong end."""
    return "" if case.won or _gave_word(rule, case, step) else f"the answer of {step.name} misled the agent"


def _look_first(rule: Rule, case: Case, step: Step, after: tuple[Step, ...]) -> str:
    """It may have been done: look before doing it again."""
    for later in after:
        if later.klass is ToolClass.READ and later.ok:
            return ""
        if later.key == step.key:
            return f"{step.name} was sent a second time without a look at what the first one did"
    return "" if _gave_word(rule, case, step) else f"nobody looked whether {step.name} had been done"


REACTIONS: Mapping[str, Reaction] = {
    "latency": _wait,
    "tool_5xx": _again,
    "odd_reply": _again,
    "permission_denied": _say_so,
    "stale_read": _right_in_the_end,
    "schema_drift": _right_in_the_end,
    "partial_write": _look_first,
}
"""injector to what an agent should do; an empty answer is a pass"""


def guarded(step: Step) -> str:
    """The rule by which the run-time guard refused this call, "" where it did not."""
    return next((tag.removeprefix(GUARD) for tag in step.tags if tag.startswith(GUARD)), "")
