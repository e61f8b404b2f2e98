"""From logged episodes to the token rows that fine-tuning learns from, and those that it leaves out.

Invariants: what a policy with the same tokenizer has sampled is taken as sampled, everything else is rendered once;
held out are whole tasks; every row is learned from, held out, or counted with the reason why it is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import Owner, TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.pipeline.parties import Talker
from muarl_cli.settings.models import Sft
from muarl_cli.training.chat_format import ChatFormat
from muarl_cli.worlds.catalog import scenario_of
from muarl_cli.worlds.scenario import stage_of

_SHOWN = 3
"""episodes that are named where they are left out; a set of thousands may have hundreds"""


@dataclass
class SftRows:
    """The token rows of the episodes, and what becomes of them."""

    of: list[tuple[Episode, tuple[TokenRow, ...]]] = field(default_factory=list)
    train: list[TokenRow] = field(default_factory=list)
    held: list[TokenRow] = field(default_factory=list)
    """held out, by task"""
    long: list[TokenRow] = field(default_factory=list)
    """left out: longer than `max_length`"""
    unsaid: int = 0
    """episodes left out: the template has no way to write one of their calls"""


def rows_of(settings: Sft, chat: ChatFormat, revision: str, episodes: Sequence[Episode], talk: Talker) -> SftRows:
    """`revision` names the policy whose own tokens are taken as they were sampled. Raises `MuarlError` where nothing is
    left to learn from."""
    from muarl_cli.training.demonstrations import encode_episode
    from muarl_cli.training.template_format import Inexpressible

    found = SftRows()
    for episode in episodes:
        stage = stage_of(scenario_of(*episode.scenario.split(":", 1)), episode.seed)
        sampled = episode.rows if episode.agent.get("revision") == revision else ()
        try:
            rows = sampled or encode_episode(stage, episode.events, chat)
        except Inexpressible as fault:
            found.unsaid += 1
            if found.unsaid <= _SHOWN:
                talk.warn(f"episode {episode.episode_id} is left out: {fault.what}: {fault.why}")
            continue
        found.of.append((episode, rows))
        for row in rows:
            if len(row.ids) > settings.max_length:
                found.long.append(row)
            elif held_out(settings, episode):
                found.held.append(row)
            else:
                found.train.append(row)
    if found.unsaid > _SHOWN:
        talk.warn(f"{found.unsaid} episodes are left out for such a call")
    long = f"{len(found.long)} longer than {settings.max_length} tokens"
    talk.say(f"{len(found.train)} rows to learn from, {len(found.held)} held out, {long}")
    if not found.train and (found.long or found.unsaid):
        raise MuarlError(
            "nothing is left to learn from",
            where=", ".join(settings.data),
            why=f"of {len(episodes)} episodes {found.unsaid} have a call that the chat template cannot write; rows: "
            f"{len(found.held)} held out, {long}",
            next_step="raise max_length, give more data, or train in another template (chat=nonthinking)",
            code=ExitCode.BAD_DATA,
        )
    return found


def held_out(settings: Sft, episode: Episode) -> bool:
    """Held out are whole tasks, so that the evaluation loss is of nothing that was learned."""
    return int(digest(["held-out", episode.task_hash], 8), 16) < settings.eval_share * 16**8


def agent_share(rows: Sequence[TokenRow]) -> float:
    """The share of all tokens that the agent drew."""
    tokens = sum(len(row.ids) for row in rows)
    return round(sum(owner == Owner.AGENT for row in rows for owner in row.owners) / max(1, tokens), 4)
