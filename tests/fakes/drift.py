"""Conversations in which rendering what was parsed and tokenising it again would not give what was sampled.

Each case is a conversation at the desk, with the turns that the policy draws as token ids. `hold_case` holds it through
the real loop; `rerendered` does what a trainer does that keeps messages: parse, render the conversation with the
checkpoint's template, tokenise the whole text, and take the tokens where the turn stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fakes.desk import READ, Parrot, hold, policy, stage
from fakes.templates import FIT

from muarl_cli.conversation.events import Actor
from muarl_cli.conversation.loop import Transcript
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.training.chat_format import END, ChatFormat, Rendering, chat_template
from muarl_cli.training.frames import Renderer, result, system, turn, user
from muarl_cli.training.template_format import open_format
from muarl_cli.training.tokenizer import make_tokenizer

Turns = list[tuple[int, ...]]
CALL = ToolCall("", "get_order", {"order_id": "48213"})
ROCKET = "🚀"


def corpus_tokenizer() -> Any:
    """Small, with line breaks that merge; its own template is that of the calls between tags."""
    texts = ['{"name": "get_order", "arguments": {"order_id": "1"}}', "Hello, return order 48213 and wait", "a\n\n\nb"]
    tokenizer = make_tokenizer(texts * 12, 420)
    tokenizer.chat_template = FIT["calls between tags"]
    return tokenizer


def plain(chat: ChatFormat, text: str) -> tuple[int, ...]:
    return tuple(chat.tokenizer.encode(text, add_special_tokens=False))


def _tag(chat: ChatFormat, name: str) -> tuple[int, ...]:
    return (int(chat.tokenizer.convert_tokens_to_ids(name)),)


def _call(chat: ChatFormat, inner: str) -> tuple[int, ...]:
    return (*_tag(chat, "<tool_call>"), *plain(chat, inner), *_tag(chat, "</tool_call>"))


def _say(chat: ChatFormat, text: str) -> tuple[int, ...]:
    return (*plain(chat, text), chat.end_id)


CASES: Mapping[str, Callable[[ChatFormat], Turns]] = {
    "trailing blank before a call": lambda chat: [
        (*plain(chat, "Wait, wait. "), *_call(chat, '\n{"name": "get_order", "arguments": {"order_id": "48213"}}\n')),
        _say(chat, "Hello"),
        _say(chat, "return order "),
    ],
    "merged boundary": lambda chat: [
        _say(chat, "\nHello"),
        (*plain(chat, "\n"), *plain(chat, "\n"), *_say(chat, "Hello")),
    ],
    "pieces that a tokenizer would join": lambda chat: [
        (*(i for letter in "return order" for i in plain(chat, letter)), chat.end_id),
        (*plain(chat, "{"), *plain(chat, "{"), *_say(chat, "Hello")),
    ],
    "reordered JSON keys": lambda chat: [
        (*_call(chat, '{"arguments":{"order_id":"48213"},"name":"get_order"}'), chat.end_id),
        _say(chat, "Hello"),
        _say(chat, "wait"),
    ],
    "unicode": lambda chat: [
        (*plain(chat, f"Hello {ROCKET} e\u0301"), *plain(chat, ROCKET)[:2], *_say(chat, " wait")),
        (*plain(chat, ROCKET)[:1], chat.end_id),
    ],
    "cut off": lambda chat: [
        (*plain(chat, "Wait. "), *_tag(chat, "<tool_call>"), *plain(chat, '\n{"name": "get_ord')),
        _say(chat, "Hello"),
        plain(chat, "Hello, return"),
    ],
    "several calls": lambda chat: [
        (
            *_call(chat, '{"name":"get_order","arguments":{"order_id":"1"}}'),
            *chat.demonstrate("", [CALL, CALL], [READ]),
        ),
        _say(chat, "Hello"),
        _say(chat, "wait"),
    ],
    "as rendered": lambda chat: [
        chat.demonstrate("Wait", [CALL], [READ]),
        chat.demonstrate("Hello", [], []),
        chat.demonstrate("return order", [], []),
    ],
}
THINKING_CASES: Mapping[str, Callable[[ChatFormat], Turns]] = {
    "stripped thinking": lambda chat: [
        chat.demonstrate("", [CALL], [READ], "Which order? I look."),
        chat.demonstrate("Hello", [], [], "Found it."),
        (*_tag(chat, "<think>"), *plain(chat, "\nwait\n"), *_tag(chat, "</think>"), *_say(chat, "\nreturn order")),
    ],
    "cut off while thinking": lambda chat: [
        (*_tag(chat, "<think>"), *plain(chat, "\nHello, return")),
        chat.demonstrate("Hello", [], [], "wait"),
    ],
}
TAGGED_CASES: Mapping[str, Callable[[ChatFormat], Turns]] = {
    "calls between tags": lambda chat: [
        _call(chat, "<function=get_order><parameter=order_id>48213</parameter></function>"),
        chat.demonstrate("Wait", [CALL, CALL], [READ]),
        (
            *_call(chat, "\n<function=get_order>\n\n<parameter=order_id>\n48213 \n</parameter>\n</function>"),
            chat.end_id,
        ),
        _say(chat, "Hello"),
        _say(chat, "wait"),
    ],
    "cut off between tags": lambda chat: [
        (*plain(chat, "Wait. "), *_tag(chat, "<tool_call>"), *plain(chat, "\n<function=get_order>\n<parameter=order")),
        _say(chat, "Hello"),
        _say(chat, "wait"),
    ],
}
ALL_CASES = {**CASES, **THINKING_CASES, **TAGGED_CASES}


@dataclass(frozen=True)
class Held:
    """A case as it was held: what was drawn, what is trained, and what the log has of it."""

    name: str
    chat: ChatFormat
    turns: Turns
    rows: tuple[TokenRow, ...]
    transcript: Transcript
    prompts: tuple[tuple[int, ...], ...]


def hold_case(name: str, tokenizer: Any) -> Held:
    dialect = "thinking" if name in THINKING_CASES else "own" if name in TAGGED_CASES else "nonthinking"
    chat = open_format(tokenizer, Rendering.FULL, dialect)
    turns = ALL_CASES[name](chat)
    engine = Parrot(turns)
    session = policy(engine, chat, max_turn_tokens=200, max_context=4000).open(stage(), None)
    transcript = hold(session)
    return Held(name, chat, turns, session.rows(), transcript, tuple(asked[0] for asked in engine.asked))


def rerendered(held: Held) -> Turns:
    """The ids of each agent turn after parsing, rendering and tokenising, from where its words begin in the text of the
    whole conversation to the end of the turn."""
    chat, ours = held.chat, chat_template(Rendering.FULL, held.name in THINKING_CASES)
    render = Renderer(chat.tokenizer, chat.tokenizer.chat_template if held.name in TAGGED_CASES else ours)
    whole = render(_messages(held), "rendering", tools=[READ.openai()])
    encoding = chat.tokenizer.backend_tokenizer.encode(whole, add_special_tokens=False)
    prompt = chat.decode([i for ids, _ in chat.generation_prompt() for i in ids])
    places = [m.span(1) for m in re.finditer(f"{re.escape(prompt)}(.*?{re.escape(END)})", whole, re.DOTALL)][1:]
    tokens = list(zip(encoding.ids, encoding.offsets, strict=True))
    return [tuple(i for i, (at, _) in tokens if start <= at < end) for start, end in places]


def _messages(held: Held) -> list[Any]:
    """The conversation as a client of a chat API keeps it."""
    messages, left, skip = system("Be kind."), list(held.turns), 0
    for event in held.transcript.events:
        if event.actor is Actor.USER:
            messages.append(user(event.text))
        elif event.actor is Actor.WORLD:
            messages.append(result(READ.name, event.text))
        elif "greeting" in event.tags:
            messages.append(turn(event.text))
        elif event.actor is Actor.AGENT and skip:
            skip -= 1
        elif event.actor is Actor.AGENT:
            thought, said = held.chat.split(left.pop(0))
            words, calls = held.chat.parse(said, [READ])
            raw = "\n".join(part for part in (words, *(call.raw for call in calls if call.problem)) if part)
            messages.append(turn(raw, [(c.name, c.arguments) for c in calls if not c.problem], thought))
            skip = len(calls) - (0 if words or not calls else 1)
    return messages
