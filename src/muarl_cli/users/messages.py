"""What a language model that plays the user is shown, and what is read out of its words.

Roles are flipped: the agent's words come as "user", the model's own as "assistant". Only events with `heard_by_user()`
count. Invariant: text of the agent can neither end the conversation nor pose as a role marker: end tokens and
chat-template markers in it are defused before the model sees them, and ends are read from the model's own reply alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event

END_TOKENS: dict[str, EndReason] = {
    "###STOP###": EndReason.USER_STOP,
    "###TRANSFER###": EndReason.TRANSFER,
    "###OUT-OF-SCOPE###": EndReason.OUT_OF_SCOPE,
}
SILENCE = "(the agent says nothing)"
_END = re.compile("|".join(re.escape(token) for token in END_TOKENS))
_HASHES = re.compile(r"#{2,}")
_MARKERS = re.compile(
    r"<\|(?=[\w/-]{1,40}\|>)|\[(?=/?INST\])|<(?=/?(?:tool_call|tool_response|think|s)>)", re.IGNORECASE
)
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


def defuse(text: str) -> str:
    """Agent text without anything that a user model or its chat template could take for a control sign."""
    return _MARKERS.sub(lambda found: found.group() + " ", _HASHES.sub("#", text))


def heard(news: Sequence[Event]) -> str:
    """What the user hears of `news`, defused; `SILENCE` where the agent said nothing."""
    words = [defuse(event.text).strip() for event in news if event.heard_by_user()]
    return "\n\n".join(word for word in words if word) or SILENCE


def own_results(news: Sequence[Event]) -> list[Event]:
    """The answers in `news` to the user's own tool calls, in their order."""
    asked = {event.call.id for event in news if event.actor is Actor.USER and event.call is not None}
    return [e for e in news if e.actor is Actor.WORLD and e.call is not None and e.call.id in asked]


def read_reply(text: str) -> tuple[str, EndReason | None]:
    """(visible words, end): a token anywhere in the text ends the conversation, the first one counts, and none is left
    in the words."""
    spoken = _THINKING.sub("", text)
    found = _END.search(spoken)
    words = _END.sub(" ", spoken)
    words = re.sub(r"[ \t]{2,}", " ", words).strip() if found else words.strip()
    return words, END_TOKENS[found.group()] if found else None
