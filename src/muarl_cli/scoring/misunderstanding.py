"""Recovery from words: an unclear answer is asked back, and what the user called wrong is not repeated.

An ambiguous answer is tagged by the user that gave it; that a proposal was called wrong is read off the words.
Invariant: like all recovery, an episode in which neither happened has no verdict here.
"""

from __future__ import annotations

import re

from muarl_cli.scoring.confirm import agreed_values, asks
from muarl_cli.scoring.findings import Finding, Layer
from muarl_cli.scoring.recovery import MIND_CHANGE
from muarl_cli.scoring.rules import Case, Rule
from muarl_cli.scoring.trace import Line, Step
from muarl_cli.scoring.values import names

AMBIGUITY = "inject:ambiguity"
_WRONG = re.compile(
    r"^no\. |^no, (that|it|this) is not|\b(not|isn't) (right|correct|what i (asked|want|said|meant))\b|\bincorrect\b"
    r"|(?<!nothing is )(?<!nothing's )\bwrong\b"
)


def clarify(rule: Rule, case: Case) -> list[Finding]:
    """After an ambiguous answer the agent asks, or finds out by reading, before it writes."""
    found = []
    for answer in case.trace.user:
        if AMBIGUITY not in answer.tags:
            continue
        write = next((step for step in case.trace.writes if step.at > answer.at), None)
        if write is None:
            continue
        asked = any(asks_at_all(line) for line in case.trace.agent_between(answer.at, write.at))
        broken = "" if asked else f"{write.name} on an answer that fits several things, without asking"
        found.append(rule.judged(Layer.RECOVERY, broken, write.at, "asked before it wrote"))
    return found or rule.na(Layer.RECOVERY)


def asks_at_all(line: Line) -> bool:
    """Whether the agent's words want an answer: a question, or a polite demand."""
    return "?" in line.text or re.search(r"\bplease (tell|give|say|let|provide|specify)\b", line.text, re.I) is not None


def correction(rule: Rule, case: Case) -> list[Finding]:
    """What the user called wrong is neither proposed again in the same words nor carried out. A change of mind is
    something else (`goal_shift`): there the proposal had been right."""
    found = []
    trace = case.trace
    for answer in trace.user:
        proposal = next((line for line in reversed(trace.agent) if line.at < answer.at), None)
        if MIND_CHANGE in answer.tags or proposal is None or not asks(proposal.text):
            continue
        if not _WRONG.search(_plain(answer.text)):
            continue
        following = next((line for line in trace.agent if line.at > answer.at and asks(line.text)), None)
        if following is not None and _plain(following.text) == _plain(proposal.text):
            broken, at = "proposes again, in the same words, what the user called wrong", following.at
        else:
            end = following.at if following is not None else trace.length
            write = next((s for s in trace.writes if answer.at < s.at < end and _as_proposed(rule, s, proposal)), None)
            broken = f"{write.name} with the values that the user called wrong" if write else ""
            at = write.at if write else answer.at
        found.append(rule.judged(Layer.RECOVERY, broken, at, "corrected"))
    return found or rule.na(Layer.RECOVERY)


def _as_proposed(rule: Rule, step: Step, proposal: Line) -> bool:
    values = agreed_values(rule, step)
    return bool(values) and all(names(value, proposal.text) for value in values)


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("\u2019", "'").split())
