"""How long the TAU-benches' own runners let a conversation go on, in the loop's terms.

The loop counts the user's messages and the agent's calls. Invariant: what these limits cut off, and nothing else, the
benchmark's own runner would have cut off at its defaults, but for TAU2's errors: it counts ten in all, we ten in a row,
as its documentation says.
"""

from __future__ import annotations

from dataclasses import replace

from muarl_cli.conversation.limits import NO_LIMIT, Limits

TAU1_STEPS = 30
"""`max_num_steps` of its agents: a step is a call or words to the user"""
TAU2_STEPS = 200
"""`max_steps` of its command: a step is a message from one party to another, so a call and its answer are two"""


def tau1_limits(limits: Limits) -> Limits:
    """The user opens, then each step of the agent adds one to the count: its call, or the user's answer to its words.
    Nothing ends on repetition."""
    return replace(limits, max_turns=1 + TAU1_STEPS, max_identical_calls=NO_LIMIT, max_failed_calls=NO_LIMIT)


def tau2_limits(limits: Limits) -> Limits:
    """A call with its answer, or words with the user's answer, are two of its steps. Nothing ends on a repeated
    call."""
    return replace(limits, max_turns=TAU2_STEPS // 2, max_identical_calls=NO_LIMIT)
