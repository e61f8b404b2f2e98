"""A served model that plays ACEBench's agent and user over the official prompts, from the entries' own milestones, and
errs in about a tenth of the turns. It keeps no state: a reply depends on the request alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fakes.openai_server import Body

MODEL = "gpt-4o-2024-11-20"
"""the official code picks its client by the name"""
ERRORS = ("skip", "unknown", "arithmetic", "words", "argument")
ONE_IN = 10
_USER = ("You are a user interacting with an agent.", "您是一名与agent互动的用户。")
_TURNS, _STEPS = "1..t:\n", "对话历史："
"""what the official prompts have before the history; multi-step has the Chinese one in both languages"""
_DONE = "All of it is done."


class AceBrain:
    """Knows entries as the worker loads them; found again by the question, the first one where several share it."""

    models = (MODEL,)

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._entries: dict[tuple[bool, str], Mapping[str, Any]] = {}
        for entry in entries:
            self._entries.setdefault(("multi_step" in entry["id"], _flat(entry["question"])), entry)

    def message(self, body: Body) -> dict[str, Any]:
        messages = body["messages"]
        if messages[0]["content"].startswith(_USER):
            return {"content": self._user(messages)}
        return {"content": self._agent(messages[1]["content"])}

    def _user(self, messages: Sequence[Mapping[str, Any]]) -> str:
        if len(messages) == 2:
            prompt = _flat(messages[0]["content"])
            found = [question for multi_step, question in self._entries if not multi_step and question in prompt]
            return max(found, key=len)
        return "finish conversation" if _DONE in messages[-1]["content"] else "Yes, please go on."

    def _agent(self, prompt: str) -> str:
        multi_step = _TURNS not in prompt
        history = prompt.split(_STEPS if multi_step else _TURNS)[-1]
        lines = history.split("\n")
        entry = self._entries[multi_step, _flat(lines[0].removeprefix("user:"))]
        done = sum(line.startswith("execution result:" if multi_step else "agent:") for line in lines)
        stones = entry["milestones"]
        stones = stones[0] if stones and isinstance(stones[0], list) else stones
        if done >= len(stones):
            return "finish conversation" if multi_step else _DONE
        return _spoilt(stones, done, entry["id"])


def _spoilt(stones: Sequence[str], at: int, name: str) -> str:
    """The milestone, or in about a tenth of the places something else."""
    number = int(hashlib.sha256(f"{name}:{at}".encode()).hexdigest()[:12], 16)
    stone = str(stones[at])
    if number % ONE_IN:
        return stone
    match ERRORS[number // ONE_IN % len(ERRORS)]:
        case "skip":
            return "One moment, please."
        case "unknown":
            return "[no_such_tool(name='x')]"
        case "argument":
            return stone.replace(")]", ", no_such_argument=1)]").replace("(, ", "(")
        case "arithmetic":
            return "[delete_message(message_id=1 + 1)]"
        case _:
            return f"I am going to call {stone} now."


def _flat(text: str) -> str:
    return " ".join(text.split())
