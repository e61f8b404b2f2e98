"""The three parties of a conversation, as protocols: an agent, a user, a world.

A *session* is one party for one episode; a *factory* opens sessions. Sessions are given the events that happened since
they last spoke (`news`), so a token-exact agent only ever appends. A party reports what is not the agent's doing by
raising one of the faults below; everything else it returns as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Event, Write
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.tools import ToolCall, ToolSpec


class Fault(Exception):
    """Something that is not the agent's doing ended the episode; subclasses say whose it was."""

    reason: EndReason = EndReason.INFRA_FAULT


class UserFault(Fault):
    """The user simulator broke its contract and could not be mended."""

    reason = EndReason.USER_FAULT


class ToolFault(Fault):
    """A tool or world crashed on valid input, or hung."""

    reason = EndReason.TOOL_FAULT


class InfraFault(Fault):
    """An endpoint, a worker or the disk failed."""

    reason = EndReason.INFRA_FAULT


class BudgetSpent(Fault):
    """Seconds or money ran out, or the run was cancelled."""

    reason = EndReason.LIMIT_BUDGET


class AgentLimit(Exception):
    """The agent itself ran out of room (context); valid, and reward 0."""


class Owner(IntEnum):
    """Who produced a token. Only AGENT tokens are trained on."""

    TEMPLATE = 0
    """role markers, generation prompts, the system turn, the greeting"""
    USER = 1
    WORLD = 2
    AGENT = 3
    """sampled by the policy, the end-of-turn token included when it was sampled"""
    EARLIER = 4
    """sampled by the policy and trained in an earlier row of the episode; context here"""


@dataclass(frozen=True)
class TokenRow:
    """One training row: parallel arrays of length T. Usually one row an episode, more where history is rewritten; each
    sampled token is an AGENT token of exactly one row, and in later rows EARLIER or absent.

    `logprobs[t]` is the log-probability under which an AGENT token was sampled, and 0.0 elsewhere.
    """

    ids: tuple[int, ...]
    owners: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Usage:
    """What one party consumed."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_usd + other.cost_usd,
        )


@dataclass(frozen=True)
class AgentTurn:
    """What the agent did in one turn: tool calls, or words, or both (then the user does not hear the words)."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    stop: bool = False
    """the agent ends the conversation, where the scenario lets it"""
    cut: bool = False
    """the turn hit its token limit before its end-of-turn token"""
    thought: str = ""
    """what it thought before it spoke: for the log alone"""
    tags: tuple[str, ...] = ()
    """what the log should know of how the turn came about: "teacher:malformed" """
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class UserTurn:
    """What the user did: words, and perhaps a vote to end, which the loop carries out after the words."""

    text: str = ""
    end: EndReason | None = None
    """None, USER_STOP, TRANSFER or OUT_OF_SCOPE"""
    calls: tuple[ToolCall, ...] = ()
    """dual control: calls to the user's own tools; their results come back as news before the user speaks"""
    tags: tuple[str, ...] = ()
    """injectors that fired in this turn, as "inject:NAME" """
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class ToolResult:
    """What a tool answered: the text the caller sees, whether it worked, and what it changed."""

    text: str
    ok: bool = True
    writes: tuple[Write, ...] = ()
    tags: tuple[str, ...] = ()
    """what a wrapper around the world did to this answer, for the log: "inject:NAME", "guard:RULE" """


@dataclass(frozen=True)
class Stage:
    """What the parties of one episode are told when their sessions open."""

    scenario: str
    policy: str
    """the agent's system prompt"""
    compact: str
    """the same in one line, for tiny models: scenario name, and nothing that is not needed to act"""
    tools: tuple[ToolSpec, ...]
    greeting: str
    """said for the agent before the user opens ("" for none)"""
    seed: int
    """of this rollout; sessions derive their own streams from it"""
    held: frozenset[str] = frozenset()
    """names of `tools` that are offered only from the user turn on whose event has the tag `tool:NAME`"""
    user_tools: tuple[ToolSpec, ...] = ()
    """dual control: the user's own tools, which the agent is not shown"""

    @property
    def offered(self) -> tuple[ToolSpec, ...]:
        """The tools that are offered from the start."""
        return tuple(tool for tool in self.tools if tool.name not in self.held) if self.held else self.tools


def released(event: Event, stage: Stage) -> tuple[ToolSpec, ...]:
    """The held tools that a user turn releases."""
    names = {tag.removeprefix("tool:") for tag in event.tags if tag.startswith("tool:")}
    return tuple(tool for tool in stage.tools if tool.name in names & stage.held)


@runtime_checkable
class AgentSession(Protocol):
    """The assistant in one episode."""

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        """Answer the events since the last call (the first call includes the greeting)."""
        ...

    def rows(self) -> tuple[TokenRow, ...]:
        """Token rows so far; empty for agents that do not work on tokens."""
        ...

    def close(self) -> None:
        """Free what the session holds (its cache slot); called exactly once."""
        ...


class AgentFactory(Protocol):
    """Opens agent sessions."""

    @property
    def info(self) -> Mapping[str, Any]:
        """`kind`, `model`, `revision`, `weight_version`, for the log."""
        ...

    def open(self, stage: Stage, task: Any) -> AgentSession:
        """A session for one episode. Only scripted agents may look at `task`: it holds the gold."""
        ...


@runtime_checkable
class UserSession(Protocol):
    """The user in one episode."""

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        """Answer the events since the last call. Words of the agent are those with `event.heard_by_user()`; a user that
        is worded by a model must not be shown the others."""
        ...

    def close(self) -> None: ...


class UserFactory(Protocol):
    """Opens user sessions."""

    @property
    def info(self) -> Mapping[str, Any]:
        """`backend`, `model`, `prompt_hash`, for the log."""
        ...

    def open(self, stage: Stage, task: Any) -> UserSession: ...


class Referee(Protocol):
    """A benchmark's own rules of play, where they differ from the loop's; a world has one as its `referee`."""

    def limits(self, limits: Limits) -> Limits:
        """The limits of the episode, given those of the run."""
        ...

    def reads(self, turn: AgentTurn) -> AgentTurn:
        """What the agent's turn means here: calls found in its words, or words where its calls cannot be read."""
        ...

    def watch(self, event: Event) -> None:
        """Told of each event as it happens."""
        ...

    def ended(self) -> tuple[EndReason, str] | None:
        """Why the conversation is over, asked after every turn; None to go on."""
        ...


@runtime_checkable
class World(Protocol):
    """What answers tool calls in one episode; its state can be fingerprinted. A world that has a `referee` (see
    `Referee`) is given every call that can be read, and judges names and arguments itself."""

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The agent's tools."""
        ...

    @property
    def user_tools(self) -> tuple[ToolSpec, ...]:
        """The user's own tools (dual control); empty in most worlds."""
        ...

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        """Execute a call that passed the toolbox check; `requestor` is "agent" or "user". A refusal by the domain is an
        ordinary result with ok=False; raise `ToolFault` only for a crash."""
        ...

    def fingerprint(self) -> str:
        """Equal states have equal fingerprints, whatever was read on the way."""
        ...

    def close(self) -> None: ...
