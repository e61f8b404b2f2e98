"""Conversations of scripted users as the redacted chats that somebody would bring: what they hold is then known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fakes.episodes import LIMITS, play

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.transcripts import Chat, Message
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.goals import Goal, goals_of
from muarl_cli.worlds.language import value_text

REDACTED = frozenset({"customer_id", "order_id", "phone", "email", "address", "member_id", "loan_id", "reservation_id"})
"""slots whose values are replaced by their name in brackets"""


@dataclass(frozen=True)
class Known:
    """A chat, what its user wanted, and which injectors fired in it."""

    chat: Chat
    goals: tuple[Goal, ...]
    fired: frozenset[str]


def known_chats(domain: Domain, count: int, rates: Mapping[str, float], split: str = "dev") -> list[Known]:
    """`count` chats of scripted users with careful agents."""
    agents, users = ScriptedAgents(domain.language, Manner.CAREFUL), AgendaUsers(domain.language, rates)
    tasks = domain.tasks(split)

    async def all_of_them() -> list[Known]:
        found = []
        for number in range(count):
            task = tasks[number % len(tasks)]
            talk = (await play(domain, task, agents, users, seed=number, limits=LIMITS)).transcript
            goals = goals_of(task.brief)
            said = [e for e in talk.events if e.kind is Kind.SAY and (e.actor is Actor.USER or e.heard_by_user())]
            messages = tuple(Message(e.actor, _redacted(e.text, goals)) for e in said if e.text)
            fired = frozenset(tag.removeprefix("inject:") for e in said for tag in e.tags)
            found.append(Known(Chat(f"chat-{number}", messages, f"chats.jsonl:{number + 1}"), goals, fired))
        return found

    return asyncio.run(all_of_them())


def _redacted(text: str, goals: tuple[Goal, ...]) -> str:
    """The words with personal values replaced: the second order of a task is [ORDER_ID_2]."""
    names: dict[str, str] = {}
    for goal in goals:
        for row in (goal.slots, goal.final):
            for slot, value in row.items():
                if slot in REDACTED and value_text(value) not in names:
                    same = sum(name.startswith(f"[{slot.upper()}") for name in names.values())
                    names[value_text(value)] = f"[{slot.upper()}{f'_{same + 1}' if same else ''}]"
    for value, name in names.items():
        text = re.sub(rf"(?<![\w@]){re.escape(value)}(?![\w@])", name, text, flags=re.I)
    return text
