"""A model that plays tools and lies at a known rate: it carries out the calls of the request on the real world, and
says something else where the dice say so.

The task is known from the seed of the request. Whether an answer is a lie depends on the request's seed alone, so a
client may retry.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

from muarl_cli.engines.chat import Finish, Reply
from muarl_cli.hashing import derive_seed
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.scenario import Task

MOST_CALLS = 24
ATTEMPTS = 3


class ToolBrain:
    """Serves "fake-tools" for the tasks given. `spoilt` is the share of first replies that cannot be read."""

    models = ("fake-tools",)

    def __init__(
        self, tasks: Iterable[tuple[Domain, Task]], seed: int = 1, lies: float = 0.0, spoilt: float = 0.0
    ) -> None:
        self.lies, self.spoilt = lies, spoilt
        self.lied = self.answered = self.unreadable = 0
        self._known: dict[int, tuple[Domain, Task, int]] = {}
        for domain, task in tasks:
            own = derive_seed(derive_seed(seed, 0, task.task_hash, 0), "tools")
            for number in range(MOST_CALLS):
                for attempt in range(ATTEMPTS):
                    parts = (own, "tool", number, *([attempt] if attempt else []))
                    self._known[derive_seed(*parts) % (1 << 31)] = (domain, task, attempt)

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"content": self.say(body["messages"], body["seed"])}

    def say(self, messages: Iterable[Mapping[str, Any]], seed: int) -> str:
        domain, task, attempt = self._known[seed % (1 << 31)]
        rng = random.Random(f"tools {seed % (1 << 31)}")
        if not attempt and rng.random() < self.spoilt:
            self.unreadable += 1
            return rng.choice(["well, let me think", '{"answer": ', "[]", '{"result": 1}'])
        world = domain.world(task)
        for message in messages:
            if message["role"] == "user" and not message["content"].startswith("[notice]"):
                call = json.loads(message["content"])
                result = world.run(call["tool"], call["arguments"])
        self.answered += 1
        if rng.random() < self.lies:
            self.lied += 1
            return _lie(result.text, result.ok)
        return json.dumps(
            {"answer": _value(result.text)} if result.ok else {"error": result.text.removeprefix("Error: ")}
        )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _lie(text: str, ok: bool) -> str:
    """An answer that means something else: a changed field, or a yes for a no."""
    value = _value(text)
    if not ok:
        return json.dumps({"answer": "ok"})
    if isinstance(value, dict) and value:
        name = sorted(value)[-1]
        return json.dumps({"answer": value | {name: "something else"}})
    return json.dumps({"answer": f"not {value}"})


class Speaker:
    """The same without a server."""

    model = "fake-tools"

    def __init__(self, brain: ToolBrain) -> None:
        self.brain = brain

    async def reply(self, messages: Any, sampling: Any) -> Reply:
        return Reply(self.brain.say(messages, sampling.seed), Finish.STOP)
