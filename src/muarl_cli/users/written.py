"""A user whose turns are written down in the task, word for word: benchmarks that play no user.

Turns follow one another whatever the agent says, and the conversation ends after the answer to the last. Invariant: the
words depend on the task alone. `extra["user_turns"]` holds a row a turn: its text and its tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, UserSession, UserTurn


class _WrittenUser:
    def __init__(self, turns: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        self._turns, self._next = turns, 0

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if self._next == len(self._turns):
            return UserTurn(end=EndReason.USER_STOP)
        text, tags = self._turns[self._next]
        self._next += 1
        return UserTurn(text, tags=tags)

    def close(self) -> None:
        return None


class WrittenUsers:
    """Opens written users."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "written", "model": "", "prompt_hash": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _WrittenUser(task.extra["user_turns"])
