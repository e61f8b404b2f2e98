"""Whose error decided a failure (S17): a language model reads each failed conversation and names the first one.

The judge sees the brief, the words, the calls and their results. Invariants: only valid episodes with reward 0 are
judged; an answer that cannot be read is counted and never taken for "not the user"; what a conversation says cannot
instruct the judge's reader, which takes one JSON object or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Event, Kind
from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.conversation.scheduler import run_all
from muarl_cli.engines.chat import ChatModel, ChatSampling
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.users.blame import AtFault, Blame, read_blame
from muarl_cli.users.facts import FactBook, Facts
from muarl_cli.users.messages import defuse
from muarl_cli.users.state import template

IN_FLIGHT = 16
MAX_TOKENS = 300
TRIES = 2
"""the second one is sampled, since the first one's answer would come again"""
FENCE = "=" * 40


def failed(episode: Episode) -> bool:
    """Whether an episode is one to be judged."""
    return episode.valid and episode.reward is not None and episode.reward < 1


async def judge(chat: ChatModel, episodes: Iterable[Episode]) -> dict[str, Blame]:
    """By episode id, the judgement of every failed one. Raises `MuarlError` where the address is of no use."""
    book = FactBook()
    wanted = [episode for episode in episodes if failed(episode)]
    if wanted:
        await chat.wire.check(chat.model)
    found = await run_all([partial(_blame, chat, prompt_of(episode, book)) for episode in wanted], IN_FLIGHT)
    return {episode.episode_id: blame for episode, blame in zip(wanted, found, strict=True)}


def prompt_of(episode: Episode, book: FactBook) -> list[Mapping[str, Any]]:
    """The two messages of one question."""
    facts = book.of(episode)
    brief = facts.instruction if isinstance(facts, Facts) else "(not known)"
    record = [f"Brief: {json.dumps(defuse(brief))}", *(_line(event) for event in episode.events)]
    text = "\n".join([FENCE, *record, FENCE])
    return [{"role": "system", "content": template("user_judge.jinja")}, {"role": "user", "content": text}]


def _line(event: Event) -> str:
    """One event as one line: JSON, so that no text can pose as another line."""
    row: dict[str, Any] = {"event": event.i, "who": event.actor.value, "did": event.kind.value}
    if event.text:
        row["text"] = defuse(event.text)
    if event.call is not None and event.kind is Kind.CALL:
        row["call"] = {"name": event.call.name, "arguments": event.call.arguments}
    return json.dumps(row, default=str)


async def _blame(chat: ChatModel, messages: Sequence[Mapping[str, Any]]) -> Blame:
    for attempt in range(TRIES):
        sampling = ChatSampling(temperature=0.0 if attempt == 0 else 0.7, max_tokens=MAX_TOKENS, seed=attempt)
        try:
            reply = await chat.reply(messages, sampling)
        except (InfraFault, ContextOverflow):
            continue
        blame = read_blame(reply.text)
        if blame.at_fault is not AtFault.UNREAD:
            return blame
    return Blame(AtFault.UNREAD)
