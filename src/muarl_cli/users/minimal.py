"""The smallest user there is: states the reason for the call, agrees to everything, stops when the agent closes.

It belongs to agents that need no answers (gold replay, the floors) and to checks of the machinery. It holds nothing of
a user's state, so a score against it says nothing about talking to users. Invariant: it depends on the task and on what
it hears, never on a clock or a random stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, UserSession, UserTurn

AGREES = "Yes, please go ahead."
NO_REASON = "Hello, I need some help."
DONE = "No, that is all. Thank you."
_CLOSING_WORDS = ("goodbye", "good bye")
_HANDOVER_WORDS = ("transferred to a human",)
_REASON_KEYS = ("reason_for_call", "reason", "instruction", "task_instructions")


def opening(task: Any) -> str:
    """How the user of `task` opens: the reason for the call and what else the brief lets them know, as one text."""
    brief = task.brief
    parts = [str(brief[key]) for key in _REASON_KEYS if brief.get(key)][:1]
    if brief.get("known_info"):
        parts.append(str(brief["known_info"]))
    return " ".join(" ".join(parts).split()) or NO_REASON


def reply(heard: str) -> UserTurn:
    """The answer to what the agent said last."""
    words = heard.lower()
    if any(word in words for word in _HANDOVER_WORDS):
        return UserTurn(text="", end=EndReason.TRANSFER)
    if any(word in words for word in _CLOSING_WORDS):
        return UserTurn(text="Goodbye.", end=EndReason.USER_STOP)
    return UserTurn(text=DONE if "anything else" in words else AGREES)


class _MinimalUser:
    def __init__(self, task: Any) -> None:
        self._task, self._opened = task, False

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if not self._opened:
            self._opened = True
            return UserTurn(text=opening(self._task))
        return reply(" ".join(event.text for event in news if event.heard_by_user()))

    def close(self) -> None:
        return None


class MinimalUsers:
    """Opens minimal users."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "minimal", "model": "", "prompt_hash": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _MinimalUser(task)
