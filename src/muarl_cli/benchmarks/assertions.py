"""Assertions in words (TAU2's NL_ASSERTION) before a judge: any model behind an OpenAI-compatible address.

Invariants: without a judge, or where its answer cannot be read or has another length than the list it was asked about,
the verdict is null and is told as such, never a pass; what is said in a conversation cannot pose as another line of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import Event, Kind
from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.chat import ChatModel, ChatSampling
from muarl_cli.engines.wire import ContextOverflow
from muarl_cli.users.messages import defuse
from muarl_cli.users.state import template
from muarl_cli.worlds.scenario import Task

BASE = "nl_assertion"
TRIES = 2
"""the second one is sampled: the first one's answer would only come again"""
MAX_TOKENS = 400
_RULE = "=" * 40


class AssertionJudge:
    """Asks one model about each conversation's assertions."""

    def __init__(self, chat: ChatModel) -> None:
        self.chat = chat

    async def judged(
        self, task: Task, events: Sequence[Event], reward: float, detail: Mapping[str, Any]
    ) -> tuple[float, dict[str, Any]]:
        """(reward, detail) with the verdict in them; the reward changes only where the task's bases name it."""
        asserted = tuple(task.extra.get("nl_assertions") or ())
        if not asserted:
            return reward, dict(detail)
        met = await self._ask(asserted, events)
        passed = None if met is None else all(met)
        told = {"count": len(asserted), "passed": passed, "met": met, "judge": self.chat.model}
        found = {**detail, "nl_assertions": told}
        bases = dict(detail.get("bases", {}))
        if BASE not in bases:
            return reward, found
        bases[BASE] = passed
        unjudged = [base for base in detail.get("unjudged", ()) if base != BASE or passed is None]
        return (0.0 if passed is False else reward), found | {"bases": bases, "unjudged": unjudged}

    async def _ask(self, asserted: Sequence[str], events: Sequence[Event]) -> list[bool] | None:
        messages = [
            {"role": "system", "content": template("assertions.jinja")},
            {"role": "user", "content": _question(asserted, events)},
        ]
        for attempt in range(TRIES):
            sampling = ChatSampling(temperature=0.0 if attempt == 0 else 0.7, max_tokens=MAX_TOKENS, seed=attempt)
            try:
                met = read_verdicts((await self.chat.reply(messages, sampling)).text, len(asserted))
            except (InfraFault, ContextOverflow):
                continue
            if met is not None:
                return met
        return None


def read_verdicts(text: str, wanted: int) -> list[bool] | None:
    """The verdicts in an answer, None where it is not exactly one truth value for each statement."""
    start, end = text.find("{"), text.rfind("}")
    try:
        met = json.loads(text[start : end + 1])["met"] if start >= 0 else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(met, list) or len(met) != wanted or not all(isinstance(value, bool) for value in met):
        return None
    return met


def _question(asserted: Sequence[str], events: Sequence[Event]) -> str:
    lines = [
        json.dumps({"who": event.actor.value, "said": defuse(event.text)}) for event in events if event.kind is Kind.SAY
    ]
    statements = [f"{number}. {statement}" for number, statement in enumerate(asserted, 1)]
    return "\n".join([_RULE, *lines, _RULE, *statements])
