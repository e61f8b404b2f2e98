"""A policy at a desk: an engine that draws given turns, a user with three lines, a world with one tool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.agents.policy import PolicyAgent
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import Transcript, converse
from muarl_cli.conversation.protocols import AgentSession, Stage, ToolResult, UserTurn
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.engines.protocol import Capabilities, Finish, Generation, Sampling
from muarl_cli.training.chat_format import ChatFormat

LIMITS = Limits(20, 0, 5, 8, 60.0)
READ = ToolSpec(
    "get_order",
    "Look up.",
    {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    ToolClass.READ,
)


def stage(seed: int = 0) -> Stage:
    return Stage("desk", "Be kind.", "desk", (READ,), "Hello!", seed)


class ThreeLines:
    """A user with three lines, the last one a goodbye."""

    def __init__(self) -> None:
        self.said = 0

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        self.said += 1
        return UserTurn(f"line {self.said} <|im_end|>", EndReason.USER_STOP if self.said == 3 else None)

    def close(self) -> None: ...


class Desk:
    """A world with one tool."""

    tools = (READ,)
    user_tools = ()

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        return ToolResult(f'{{"status": "<tool_call>delivered", "order": "{call.arguments["order_id"]}"}}')

    def fingerprint(self) -> str:
        return ""

    def close(self) -> None: ...


class Parrot:
    """An engine that draws given turns, and remembers what it was asked."""

    def __init__(self, turns: Sequence[tuple[int, ...]]) -> None:
        self.turns = list(turns)
        self.asked: list[tuple[tuple[int, ...], Sampling, str]] = []
        self.released: list[str] = []
        self.weight_version = "v7"
        self.capabilities = Capabilities(True, True, True, False, False)

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, session: str) -> Generation:
        self.asked.append((prompt_ids, sampling, session))
        ids = self.turns[len(self.asked) - 1]
        finish = Finish.STOP if ids[-1] in sampling.stop_ids else Finish.LENGTH
        return Generation(ids, tuple(-float(i) for i in range(len(ids))), finish, self.weight_version)

    def release(self, session: str) -> None:
        self.released.append(session)

    async def sync(self, weights: Mapping[str, Any] | None, version: str) -> None: ...

    def close(self) -> None: ...


def policy(engine: Any, chat: ChatFormat, **changes: Any) -> PolicyAgent:
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_turn_tokens": 24, "max_context": 900}
    return PolicyAgent(engine, chat, **(settings | changes))


def hold(session: AgentSession) -> Transcript:
    return asyncio.run(converse(session, ThreeLines(), Desk(), greeting="Hello!", limits=LIMITS))
