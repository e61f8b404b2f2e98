"""The policy as an agent: a chat format in front of an engine, token-exact.

A session is a thread of tokens (`training.threads`): news is appended by the format, the turn by the engine, as it was
sampled. Invariant: what `rows()` returns is what the engine saw and drew, and nothing was tokenised twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import AgentLimit, AgentTurn, Stage, TokenRow, Usage, released
from muarl_cli.engines.protocol import Engine, Finish, Sampling
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.hashing import derive_seed
from muarl_cli.training.chat_format import ChatFormat
from muarl_cli.training.threads import Thread


class PolicyAgent:
    """Opens sessions of one policy.

    `max_turn_tokens` bounds a sampled turn, `max_context` the whole conversation; `model` and `revision` are for the
    log.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat,
        *,
        temperature: float,
        top_p: float,
        max_turn_tokens: int,
        max_context: int,
        model: str = "",
        revision: str = "",
    ) -> None:
        self.engine, self.chat = engine, chat
        self.temperature, self.top_p = temperature, top_p
        self.max_turn_tokens, self.max_context = max_turn_tokens, max_context
        self._model, self._revision = model, revision
        self._opened = 0

    @property
    def info(self) -> Mapping[str, Any]:
        return {
            "kind": "policy",
            "model": self._model,
            "revision": self._revision,
            "weight_version": self.engine.weight_version,
        }

    def open(self, stage: Stage, task: Any) -> PolicySession:
        self._opened += 1
        return PolicySession(self, stage, f"{self._opened:09d}")


class PolicySession:
    """The policy in one episode."""

    def __init__(self, agent: PolicyAgent, stage: Stage, name: str) -> None:
        self._agent, self._stage, self._seed, self._name = agent, stage, stage.seed, name
        self._thread = Thread(agent.chat, stage)
        self._turns = 0
        self._calls = 0
        self.weight_versions: list[str] = []
        """of the weights that each turn was drawn with (that its drawing began with, where they were replaced under it)
        """

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        """Raises `AgentLimit` where the conversation fills the context."""
        agent, thread = self._agent, self._thread
        thread.hear([_with_tools(event, self._stage) for event in news])
        prompt = thread.ask()
        room = agent.max_context - len(prompt)
        if room < 1:
            raise AgentLimit(f"context: {len(prompt)} tokens of {agent.max_context}")
        sampling = Sampling(
            agent.temperature,
            agent.top_p,
            min(agent.max_turn_tokens, room),
            agent.chat.stop_ids,
            derive_seed(self._seed, "agent", self._turns),
        )
        self._turns += 1
        try:
            drawn = await agent.engine.generate(prompt, sampling, self._name)
        except ContextOverflow as overflow:  # a server that holds less than it told
            raise AgentLimit(f"context: {overflow}") from overflow
        thread.sampled(drawn.ids, drawn.logprobs)
        self.weight_versions.append(drawn.weight_version)
        thought, said = agent.chat.split(drawn.ids)
        text, calls = agent.chat.parse(said, self._stage.tools, self._calls)
        self._calls += len(calls)
        cut = drawn.finish is Finish.LENGTH
        return AgentTurn(text, calls, cut=cut, thought=thought, usage=Usage(len(prompt), len(drawn.ids)))

    def rows(self) -> tuple[TokenRow, ...]:
        return self._thread.rows()

    def close(self) -> None:
        self._agent.engine.release(self._name)


def _with_tools(event: Event, stage: Stage) -> Event:
    """A user turn that releases held tools brings their definitions along: a token list never changes at its head."""
    tools = released(event, stage)
    if not tools:
        return event
    return replace(event, text=json.dumps([tool.openai() for tool in tools], ensure_ascii=False) + "\n" + event.text)
