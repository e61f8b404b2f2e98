"""A conversation as the policy's tokens: one list that only grows, or several where the template forgets.

A template that drops the thoughts of earlier turns when the user speaks again rewrites the conversation there. The
list so far is then a finished training row, and a new one tells the conversation as the model now sees it: what others
said token by token as before, earlier sampled turns without their thoughts and owned by EARLIER. Invariant: each
sampled token is owned by AGENT in exactly one row, and a row is what the engine was prompted with, followed by what it
drew.
"""

from __future__ import annotations

from collections.abc import Sequence

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import Owner, Stage, TokenRow
from muarl_cli.training.chat_format import ChatFormat, Piece, TokenList


class Thread:
    """One conversation in a chat format, from its system turn on."""

    def __init__(self, chat: ChatFormat, stage: Stage) -> None:
        self._chat = chat
        self._finished: list[TokenRow] = []
        self._past: list[list[Piece] | tuple[int, ...]] = []
        """what others added, and what was sampled, in order"""
        self._tokens = TokenList()
        self._add(chat.begin(stage))

    def hear(self, news: Sequence[Event]) -> None:
        """What happened since the policy last spoke."""
        if any(event.actor is Actor.USER and event.kind is Kind.SAY for event in news) and self._rewritten():
            self._fork()
        self._add(self._chat.news(news))

    def ask(self) -> tuple[int, ...]:
        """The whole conversation, up to where the policy speaks: what its engine is prompted with."""
        self._tokens.extend(self._chat.generation_prompt())
        return tuple(self._tokens.ids)

    def sampled(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """The turn that was drawn after `ask`."""
        self._tokens.sampled(ids, logprobs)
        self._tokens.extend(self._chat.end_of_turn(ids))
        self._past.append(tuple(ids))

    def rows(self) -> tuple[TokenRow, ...]:
        """The training rows so far; the last one is left out where others hold all that was sampled."""
        if self._finished and Owner.AGENT not in self._tokens.owners:
            return tuple(self._finished)
        return (*self._finished, self._tokens.row())

    def _add(self, pieces: list[Piece]) -> None:
        self._past.append(pieces)
        self._tokens.extend(pieces)

    def _rewritten(self) -> bool:
        """Whether the list holds turns that the template tells otherwise now."""
        return any(self._chat.rewrites(part) for part in self._past if isinstance(part, tuple))

    def _fork(self) -> None:
        if Owner.AGENT in self._tokens.owners:
            self._finished.append(self._tokens.row())
        told = [self._chat.recalled(part) if isinstance(part, tuple) else part for part in self._past]
        self._past, self._tokens = [], TokenList()
        for pieces in told:
            self._add(pieces)
