"""The smallest user there is: states the reason for the call, agrees to everything, stops when the agent closes.

Where users have tools of their own it does on its device what the agent asks for in so many words (`instruction`).

It belongs to agents that need no answers (gold replay, the floors) and to checks of the machinery. It holds nothing of
a user's state, so a score against it says nothing about talking to users. Invariant: it depends on the task and on what
it hears, never on a clock or a random stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, UserSession, UserTurn
from muarl_cli.conversation.tools import ToolCall, parse_arguments
from muarl_cli.users.messages import own_results

AGREES = "Yes, please go ahead."
NO_REASON = "Hello, I need some help."
DONE = "No, that is all. Thank you."
DID = "I did that."
_ASKED = re.compile(r"Please use (\w+) with (\{.*\})\.$", re.MULTILINE)
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


def instruction(name: str, arguments: Mapping[str, Any]) -> str:
    """How an agent asks this user to use a tool on their own device."""
    return f"Please use {name} with {json.dumps(dict(arguments))}."


def asked_calls(heard: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """(tool, arguments as text) of what the agent asks for, among the tools that the user has."""
    return [(name, arguments) for name, arguments in _ASKED.findall(heard) if name in names]


class _MinimalUser:
    def __init__(self, task: Any, stage: Stage) -> None:
        self._task, self._opened, self._calls = task, False, 0
        self._tools = [tool.name for tool in stage.user_tools]

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if not self._opened:
            self._opened = True
            return UserTurn(text=opening(self._task))
        if own_results(news):
            return UserTurn(text=DID)
        heard = " ".join(event.text for event in news if event.heard_by_user())
        calls = tuple(self._call(name, arguments) for name, arguments in asked_calls(heard, self._tools))
        return UserTurn(calls=calls) if calls else reply(heard)

    def _call(self, name: str, text: str) -> ToolCall:
        self._calls += 1
        return ToolCall(f"user{self._calls:05d}", name, *parse_arguments(text))

    def close(self) -> None:
        return None


class MinimalUsers:
    """Opens minimal users."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "minimal", "model": "", "prompt_hash": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _MinimalUser(task, stage)
