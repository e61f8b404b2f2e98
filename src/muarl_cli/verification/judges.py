"""A committee of models that reads a trajectory and votes; the last filter before a person.

Each judge gets the policy, the tools' names and the conversation, and answers in JSON. A reply that is no vote is asked
for once more with another prompt, then counts as no vote. Invariant: what more than half of the whole committee does
not accept is rejected; every raw reply is on disk before its vote counts, and a vote that is there is never paid for
again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.conversation.protocols import InfraFault
from muarl_cli.engines.chat import ChatModel, ChatSampling
from muarl_cli.engines.wire import ContextOverflow
from muarl_cli.hashing import derive_seed
from muarl_cli.records.journal import Journal
from muarl_cli.users.state import render
from muarl_cli.verification.reading import as_text
from muarl_cli.verification.subject import Filter, Reason, Subject

NAME = "judgements.jsonl"
TRIES = 2
MAX_TOKENS = 400
"""a vote and one sentence"""
_OBJECT = re.compile(r"\{.*\}", re.S)


@dataclass(frozen=True)
class Vote:
    """What one judge said; `accept` None where its reply was no vote."""

    judge: str
    accept: bool | None
    why: str


class Committee:
    """Judges behind one address."""

    def __init__(self, judges: Sequence[ChatModel], folder: Path, seed: int) -> None:
        self._judges, self._seed = judges, seed
        self._journal = Journal(folder / NAME)
        self._known = {
            (row["episode_id"], row["judge"]): row for row in self._journal.rows() if row["vote"] is not None
        }

    async def judge(self, subject: Subject) -> list[Reason]:
        """No reason where more than half of the committee accepts."""
        votes = await asyncio.gather(*(self._vote(judge, subject) for judge in self._judges))
        yes = sum(vote.accept is True for vote in votes)
        if 2 * yes > len(votes):
            return []
        against = "; ".join(f"{vote.judge}: {vote.why}" for vote in votes if vote.accept is not True)
        code = "no_vote" if all(vote.accept is None for vote in votes if vote.accept is not True) else "outvoted"
        return [Reason(Filter.JUDGES, code, f"{yes} of {len(votes)} judges accept: {against[:400]}")]

    async def _vote(self, judge: ChatModel, subject: Subject) -> Vote:
        key = (subject.episode.episode_id, judge.model)
        if key not in self._known:
            self._known[key] = await self._ask(judge, subject)
        row = self._known[key]
        return Vote(judge.model, row["vote"], row["why"])

    async def _ask(self, judge: ChatModel, subject: Subject) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for attempt in range(TRIES):
            prompt = render(
                "judge.jinja",
                policy=subject.scenario.policy,
                tools=[f"{tool.name}: {tool.description}" for tool in subject.scenario.tools],
                transcript=as_text(subject.episode.events),
                again=attempt > 0,
            )
            sampling = ChatSampling(0.3 * attempt, MAX_TOKENS, seed=derive_seed(self._seed, "judge", attempt))
            try:
                text = (await judge.reply([{"role": "user", "content": prompt}], sampling)).text
                vote, why = read_vote(text)
            except (InfraFault, ContextOverflow) as fault:
                text, vote, why = "", None, f"did not answer: {fault}"
            row = {
                "episode_id": subject.episode.episode_id,
                "judge": judge.model,
                "attempt": attempt,
                "vote": vote,
                "why": why,
                "reply": text,
            }
            self._journal.add(row)
            if vote is not None:
                break
        return row

    async def close(self) -> None:
        for judge in self._judges:
            await judge.wire.close()
        self._journal.close()


def read_vote(text: str) -> tuple[bool | None, str]:
    """(accept or None, why) from a judge's reply: the JSON object in it, whatever stands around."""
    found = _OBJECT.search(text)
    try:
        value: Mapping[str, Any] = json.loads(found.group()) if found else {}
    except ValueError:
        value = {}
    verdict = str(value.get("verdict", "")).strip().lower() if isinstance(value, Mapping) else ""
    if verdict not in ("accept", "reject"):
        return None, "its reply is no vote"
    return verdict == "accept", str(value.get("reason", ""))[:300]
