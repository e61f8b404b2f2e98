"""Failures whose culprit is known, and a judge by rule who finds them: what stands in for people and large models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fakes.planted_users import clean, cut, facts_of, user_turns

from muarl_cli.conversation.episode import Episode


class YesJudge:
    """Blames the user where a yes is the last thing they said; else the agent."""

    models = ("judge",)

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        lines = [
            json.loads(line) for line in body["messages"][1]["content"].splitlines() if line.startswith('{"event"')
        ]
        last = [line for line in lines if line["who"] == "user"][-1]
        left = re.match(r"yes|correct", last["text"]) is not None
        answer = {"at_fault": "user" if left else "agent", "event": last["event"], "error": "premature_termination"}
        return {"content": f"Here is what I found:\n```json\n{json.dumps(answer)}\n```"}


def failing(count: int = 6, tasks: int = 24) -> list[Episode]:
    """Episodes that failed: in every second one the user left with their yes."""
    found: list[Episode] = []
    for episode in clean(tasks=tasks, trials=1):
        language = facts_of(episode).language
        assert language
        at = next((e.i for e in user_turns(episode) if e.text in language.phrases["agree"]), None)
        if at is None:
            continue
        broken = cut(episode, at, episode.events[at].text) if len(found) % 2 else episode
        found.append(replace(broken, reward=0.0))
        if len(found) == count:
            return found
    raise AssertionError("too few conversations with a yes")
