"""Any OpenAI-compatible chat model as the agent: a teacher, a served checkpoint, a vendor's model.

The session keeps the message list and only ever appends to it, so a server's prefix cache serves every turn. Calls get
ids of ours (nine letters and digits, which every known server accepts back), so the log of a deterministic model is the
same twice. Invariant: whatever the model sends becomes an `AgentTurn`; malformed calls carry their problem along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import AgentLimit, AgentSession, AgentTurn, Stage, TokenRow, released
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.engines.chat import (
    ChatModel,
    ChatSampling,
    Finish,
    RawCall,
    Reply,
    assistant_message,
    message,
    numbered,
    tool_message,
)
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.hashing import derive_seed
from muarl_cli.written import Written


class OpenAIAgents:
    """Opens agent sessions on one chat model. `max_turn_tokens` bounds each turn; `temperature` 0 is greedy."""

    def __init__(
        self,
        chat: ChatModel,
        *,
        temperature: float,
        max_turn_tokens: int,
        top_p: float | None = None,
        send_seed: bool = True,
        revision: str = "",
    ) -> None:
        self.chat = chat
        self._temperature, self._max_tokens, self._top_p = temperature, max_turn_tokens, top_p
        self._send_seed, self._revision = send_seed, revision

    @property
    def info(self) -> Mapping[str, Any]:
        return {"kind": "openai", "model": self.chat.model, "revision": self._revision, "weight_version": 0}

    def open(self, stage: Stage, task: Any) -> AgentSession:
        return ChatSession(self.chat, stage, self._sampling)

    def _sampling(self, stage: Stage, turn: int, attempt: int = 0) -> ChatSampling:
        """The sampling of a turn; another attempt at it is warmer and has another seed."""
        parts = (stage.seed, "agent", turn, *([attempt] if attempt else []))
        seed = derive_seed(*parts) if self._send_seed else None
        warmer = min(1.5, max(self._temperature, 0.4) + 0.3 * attempt) if attempt else self._temperature
        return ChatSampling(warmer, self._max_tokens, self._top_p, seed)


class ChatSession:
    """The agent of one episode, behind a chat model."""

    def __init__(self, chat: ChatModel, stage: Stage, sampling: Any) -> None:
        self._chat, self._stage, self._sampling = chat, stage, sampling
        self._messages: list[Written] = [message("system", stage.policy)] if stage.policy else []
        self._offered = stage.offered
        self._turns = self._calls = 0

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        for event in news:
            self._take(event)
        return self._keep(await self._reply(0))

    async def _reply(self, attempt: int, notice: str = "") -> Reply:
        """What the model says next; `notice` stands behind the conversation this once."""
        messages = [*self._messages, message("user", notice)] if notice else self._messages
        try:
            return await self._chat.reply(messages, self._sampling(self._stage, self._turns, attempt), self._offered)
        except ContextOverflow as overflow:
            raise AgentLimit(f"context: {overflow}") from overflow

    def _keep(self, reply: Reply) -> AgentTurn:
        """Take a reply into the history; the turn that it is."""
        self._turns += 1
        calls = tuple(self._call(raw) for raw in reply.calls)
        self._messages.append(assistant_message(reply.text, calls))
        return AgentTurn(text=reply.text, calls=calls, cut=reply.finish is Finish.LENGTH, usage=reply.usage)

    def rows(self) -> tuple[TokenRow, ...]:
        return ()

    def close(self) -> None:
        self._messages.clear()

    def _take(self, event: Event) -> None:
        """One event as a message. What this session said itself is already there; the greeting is not."""
        if event.actor is Actor.AGENT and event.kind is Kind.SAY and "greeting" in event.tags:
            self._messages.append(message("assistant", event.text))
        elif event.actor is Actor.USER and event.kind is Kind.SAY:
            self._messages.append(message("user", event.text))
            self._offered += released(event, self._stage)
        elif event.actor is Actor.WORLD and event.call is not None:
            self._messages.append(tool_message(event))
        elif event.actor is Actor.WORLD and event.kind is Kind.ERROR:
            self._messages.append(message("user", f"[notice] {event.text}"))

    def _call(self, raw: RawCall) -> ToolCall:
        self._calls += 1
        return numbered(raw, f"call{self._calls:05d}")
