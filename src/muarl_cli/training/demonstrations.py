"""Token rows from event lists: what a policy would have sampled, had it played a recorded episode.

Scripted agents and teachers leave no sampled ids, so their turns are rendered and tokenised once, here. Invariant:
AGENT owns the content of the agent's turns and their end-of-turn tokens; the greeting belongs to the template; a row
ends with the agent's last turn in it, since nothing after it is ever predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind
from muarl_cli.conversation.protocols import Owner, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.training.chat_format import ChatFormat
from muarl_cli.training.threads import Thread


@dataclass
class _Turn:
    """One agent turn as recorded: thoughts, words, calls, and the world's answers to them."""

    text: str = ""
    thought: str = ""
    cut: bool = False
    beside_calls: bool = False
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Event] = field(default_factory=list)


def encode_episode(stage: Stage, events: Sequence[Event], chat: ChatFormat) -> tuple[TokenRow, ...]:
    """The training rows of a recorded episode, log-probabilities zero: one, or more where the format forgets thoughts.
    None where the agent never acted.

    Calls belong to one turn when the event says so (tag "same_turn") or when they follow words said beside calls.
    Raises `Inexpressible` where the format cannot say a call.
    """
    thread = Thread(chat, stage)
    news: list[Event] = []
    turn: _Turn | None = None
    for event in events:
        if turn is not None and _belongs(event, turn):
            _add(turn, event, events)
            continue
        if turn is not None:
            news = _write(thread, news, turn, chat, stage.tools)
            turn = None
        if (event.actor is Actor.USER and event.kind is Kind.SAY) or "greeting" in event.tags:
            news.append(event)
        elif event.actor is Actor.AGENT:
            turn = _Turn()
            _add(turn, event, events)
    if turn is not None:
        _write(thread, news, turn, chat, stage.tools)
    return thread.rows() if Owner.AGENT in thread.rows()[-1].owners else ()


def _belongs(event: Event, turn: _Turn) -> bool:
    """Whether an event is part of the agent turn under way."""
    if event.actor is Actor.WORLD:
        return True
    if event.actor is Actor.USER:
        return event.kind is Kind.CALL
    if event.actor is not Actor.AGENT or event.kind is not Kind.CALL:
        return False
    return "same_turn" in event.tags or (turn.beside_calls and not turn.calls)


def _add(turn: _Turn, event: Event, events: Sequence[Event]) -> None:
    turn.thought = turn.thought or event.thought
    if event.actor is Actor.WORLD:
        if event.call is None or _asked_by_agent(event.call, event.i, events):
            turn.results.append(event)
    elif event.actor is Actor.AGENT and event.kind is Kind.CALL and event.call is not None:
        call = event.call
        problem = "" if call.arguments is not None else "malformed"
        turn.calls.append(ToolCall(call.id, call.name, call.arguments or {}, problem, event.text))
    elif event.actor is Actor.AGENT and event.kind is Kind.SAY:
        turn.text, turn.cut, turn.beside_calls = event.text, "cut" in event.tags, "beside_calls" in event.tags


def _asked_by_agent(call: CallRecord, before: int, events: Sequence[Event]) -> bool:
    """Users have tools of their own in some worlds, and may use the same call ids; the latest asker counts."""
    asked = (e for e in reversed(events) if e.i < before and e.kind is Kind.CALL and e.call and e.call.id == call.id)
    return next((event.actor for event in asked), Actor.AGENT) is Actor.AGENT


def _write(
    thread: Thread, news: Sequence[Event], turn: _Turn, chat: ChatFormat, tools: Sequence[ToolSpec]
) -> list[Event]:
    """Add what was heard and then the turn; returns the first of what is heard next."""
    thread.hear(news)
    thread.ask()
    ids = chat.demonstrate(turn.text, turn.calls, tools, turn.thought)
    ids = ids[:-1] if turn.cut else ids
    thread.sampled(ids, [0.0] * len(ids))
    return turn.results
