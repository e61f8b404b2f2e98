"""A served judge for one question about many episodes: opened, asked, closed.

Invariant: a judge at a paid address costs at most `max_usd`; what it cost is kept in the folder of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from muarl_cli.conversation.episode import Episode
from muarl_cli.pipeline.parties import chat_model
from muarl_cli.users.blame import Blame
from muarl_cli.users.judge import judge


def ask_judge(episodes: Sequence[Episode], model: str, base_url: str, max_usd: float, folder: Path) -> dict[str, Blame]:
    """Whose error decided each failed episode. Raises `MuarlError` where the address is of no use."""
    chat = chat_model(model, base_url, {}, max_usd, folder, flag="--judge-base-url")

    async def ask() -> dict[str, Blame]:
        try:
            return await judge(chat, episodes)
        finally:
            await chat.wire.close()

    return asyncio.run(ask())
