"""The chat format of any template that passes its probes: Qwen3 with thinking, and a checkpoint's own.

The frames around turns are learned from the template once (`frames`); from then on turns are appended as in the format
without a template, token by token, and what was sampled is never rendered. Only the system turn and demonstrations,
which come before anything is sampled or in place of it, go through the template. Invariant: for a conversation in which
nobody imitates a control token, the decoded token list is what the template renders (`probes`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from muarl_cli.conversation.protocols import Owner, Stage
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.chat_format import (
    START,
    ChatFormat,
    Piece,
    Rendering,
    Span,
    chat_template,
    compact_system,
)
from muarl_cli.training.frames import CONTEXT, Renderer, difference, learn, refused, system, turn
from muarl_cli.training.hermes import HERMES, parse_turn

_MARKS = "\ufdd0", "\ufdd1"
"""around text that must not become a control token while a template renders it; no characters, by Unicode's own word"""
_NOTHING = "a thought that is left out"
"""stands where a demonstration has no thought, while a template renders it"""


class Inexpressible(MuarlError):
    """A call that a demonstration makes and that this template's way to write calls cannot say."""


class Dialect(StrEnum):
    """Which template a conversation is held in."""

    NONTHINKING = "nonthinking"
    """Qwen3 with an empty think block before every turn"""
    THINKING = "thinking"
    """Qwen3 that thinks before every turn; thoughts leave the conversation when the user speaks again"""
    OWN = "own"
    """the checkpoint's own chat template"""


def open_format(tokenizer: Any, rendering: Rendering | str, dialect: Dialect | str) -> ChatFormat:
    """The chat format of a dialect; a template is put through its probes first. Raises `MuarlError`."""
    match Dialect(dialect):
        case Dialect.NONTHINKING:
            return ChatFormat(tokenizer, rendering)
        case Dialect.THINKING:
            template: str | None = chat_template(rendering, thinking=True)
        case Dialect.OWN:
            template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        raise refused("rendering", "the checkpoint has no chat template, or several by name")
    from muarl_cli.training.probes import probe

    chat = TemplateFormat(tokenizer, rendering, template)
    probe(chat)
    return chat


def default_dialect(tokenizer: Any) -> Dialect:
    """For a checkpoint whose template is not one of ours: Qwen3's without thinking where it can be spoken, unless its
    template writes calls in another way than Qwen3's, as Qwen3.5's does."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if backend.token_to_id(START) is None:
        return Dialect.OWN
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return Dialect.NONTHINKING
    try:
        learned = TemplateFormat(tokenizer, Rendering.FULL, template).frames.syntax
    except MuarlError:
        return Dialect.NONTHINKING
    return Dialect.NONTHINKING if learned == HERMES else Dialect.OWN


class TemplateFormat(ChatFormat):
    """Turns to tokens and back, in the words of a template. Raises `MuarlError` where its frames cannot be learned."""

    def __init__(self, tokenizer: Any, rendering: Rendering | str, template: str) -> None:
        self._read(tokenizer, rendering)
        self.render = Renderer(tokenizer, template)
        self.frames = learn(self.render, self._controls)
        self.end_id = self._controls[self.frames.end]
        eos = getattr(tokenizer, "eos_token_id", None)
        self.stop_ids = (self.end_id, *([eos] if eos not in (None, self.end_id) else ()))
        self._base = self.render(CONTEXT, "rendering")

    @property
    def controls(self) -> tuple[str, ...]:
        """The texts of the tokenizer's control tokens."""
        return tuple(self._controls)

    def begin(self, stage: Stage) -> list[Piece]:
        full = self.rendering is Rendering.FULL
        said = self._marked(stage.policy if full else compact_system(stage))
        tools = [self._marked(tool.openai()) for tool in stage.offered] if full else []
        (asked,) = CONTEXT[-1:]
        text = self.render([*system(said), asked], "system", tools=tools)
        last = self.frames.user[0] + asked["content"] + self.frames.user[1]
        if not text.endswith(last):
            raise refused(
                "system", f"the first user turn is not a turn of its own: {difference(last, text[-len(last) :])}"
            )
        return self._template(self._spans(text[: len(text) - len(last)], Owner.TEMPLATE))

    def greeting(self, text: str) -> list[Piece]:
        own, frames = Owner.TEMPLATE, self.frames
        return self._template([Span(frames.recall, own, True), Span(text, own), Span(frames.closing, own, True)])

    def user(self, text: str) -> list[Piece]:
        own, (before, after) = Owner.TEMPLATE, self.frames.user
        words = text.strip() if self.frames.trims_user else text
        return self._template([Span(before, own, True), Span(words, Owner.USER), Span(after, own, True)])

    def results(self, texts: Sequence[str]) -> list[Piece]:
        own, frames = Owner.TEMPLATE, self.frames
        before, between, after = frames.results
        spans = [Span(before, own, True)]
        for place, text in enumerate(texts):
            shown = text.strip() if frames.trims_results else text
            shown = json.dumps(text, ensure_ascii=False) if frames.quotes_results else shown
            spans += [Span(between if place else "", own, True), Span(shown, Owner.WORLD)]
        return self._template([*spans, Span(after, own, True)])

    def generation_prompt(self) -> list[Piece]:
        return self._template([Span(self.frames.prompt, Owner.TEMPLATE, True)])

    def end_of_turn(self, sampled: Sequence[int]) -> list[Piece]:
        closed = bool(sampled) and sampled[-1] == self.end_id
        return self._template([Span(self.frames.after_end if closed else self.frames.closing, Owner.TEMPLATE, True)])

    def rewrites(self, sampled: Sequence[int]) -> bool:
        frames = self.frames
        return frames.forgets and (frames.recall != frames.prompt or self.remembered(sampled) != tuple(sampled))

    def recalled(self, sampled: Sequence[int]) -> list[Piece]:
        frames, (thought, _), kept = self.frames, self._parted(sampled), self.remembered(sampled)
        before = frames.recall
        if frames.forgets:
            text = self.text_of(kept)
            call = frames.syntax.find(text, 0)
            words, calls, both = frames.retold[bool(self.text_of(thought).strip())]
            before = words if call < 0 else both if text[:call].strip() else calls
        opening = self._template([Span(before, Owner.TEMPLATE, True)])
        return [*opening, *([(kept, Owner.EARLIER)] if kept else []), *self.end_of_turn(kept)]

    def remembered(self, sampled: Sequence[int]) -> tuple[int, ...]:
        return self._parted(sampled)[1] if self.frames.forgets else tuple(sampled)

    def split(self, sampled: Sequence[int]) -> tuple[str, str]:
        thought, said = self._parted(sampled)
        return self.text_of(thought).strip(), self.text_of(said)

    def parse(self, text: str, tools: Sequence[ToolSpec], first_call: int = 0) -> tuple[str, tuple[ToolCall, ...]]:
        return parse_turn(text, first_call, self.frames.syntax, tools)

    def demonstrate(
        self, text: str, calls: Sequence[ToolCall], tools: Sequence[ToolSpec], thought: str = ""
    ) -> tuple[int, ...]:
        """The ids a policy would sample for this turn, its end included, as the template renders it. A malformed call
        becomes words. Raises `Inexpressible` where a call would be read otherwise than it is."""
        whole = [call for call in calls if not call.problem]
        words = "\n".join(part for part in (text, *(call.raw for call in calls if call.problem)) if part)
        body = self._body(words, whole, thought if self.frames.thought else "")
        spans = self._spans(body + self.frames.before_end + self.frames.end, Owner.AGENT)
        ids = tuple(i for part, _ in self._pieces(spans) for i in part)
        if whole:
            _, found = self.parse(self.split(ids)[1], tools)
            self._require_same(whole, found[-len(whole) :])
        return ids

    def _body(self, words: str, calls: Sequence[ToolCall], thought: str) -> str:
        """A turn as the template renders it behind the prompt, without its end. Where the prompt opens a thought and
        the template writes a turn without one otherwise, the thought is closed at once."""
        given = [(self._marked(call.name), self._marked(dict(call.arguments))) for call in calls]
        frames, start = self.frames, self._base + self.frames.prompt
        rendered = self.render([*CONTEXT, turn(self._marked(words), given, self._marked(thought))], "say")
        if frames.thought and not thought and not rendered.startswith(start):
            rendered = self.render([*CONTEXT, turn(self._marked(words), given, _NOTHING)], "say")
            rendered = rendered[: len(start)] + rendered[len(start) :].replace(_NOTHING, "", 1)
        if not (rendered.startswith(start) and rendered.endswith(frames.closing)):
            raise refused("say", f"a turn is rendered otherwise than it is sampled: {difference(start, rendered)}")
        return rendered[len(start) : len(rendered) - len(frames.closing)]

    def _require_same(self, calls: Sequence[ToolCall], found: Sequence[ToolCall]) -> None:
        """Raises `Inexpressible` at the first call that is read otherwise; 2 and "2" are not the same."""
        for place, call in enumerate(calls):
            read = found[place] if place < len(found) else ToolCall("", "", {}, "there is no call")
            if (read.name, _exact(read.arguments)) != (call.name, _exact(call.arguments)):
                raise Inexpressible(
                    f"a call of {call.name[:64]!r} cannot be written in the checkpoint's call syntax",
                    where=_exact(call.arguments)[:200],
                    why=read.problem[:300]
                    or f"what is written is read as {read.name[:64]} {_exact(read.arguments)[:200]}",
                    next_step="leave the episode out: a syntax without quotes cannot write a text that holds its tags, "
                    "or one that looks like the other kind of value that the tool's schema asks for",
                    code=ExitCode.BAD_DATA,
                )

    # Thoughts, token by token: text that only looks like their tags is no tag.

    def _parted(self, sampled: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of a sampled turn as (those of its thoughts, the others): blanks after a thought go with it."""
        if self.frames.thought is None:
            return (), tuple(sampled)
        opens, closes = (self._controls[tag] for tag in self.frames.thought)
        thought: list[int] = []
        said: list[int] = []
        tags = [token for token in self._ids_of(self.frames.prompt) if token in (opens, closes)]
        inside, fresh = tags[-1:] == [opens], False
        for token in sampled:
            if token == opens:
                inside = True
            elif token == closes:
                inside, fresh = False, True
            elif token in self.stop_ids:
                said.append(token)
            elif inside:
                thought.append(token)
            elif fresh and (text := self.decode([token])) != (words := text.lstrip()):
                said += self._backend.encode(words, add_special_tokens=False).ids if words else []
                fresh = not words
            else:
                fresh = False
                said.append(token)
        return tuple(thought), tuple(said)

    def _ids_of(self, text: str) -> list[int]:
        return [i for ids, _ in self._pieces([Span(text, Owner.TEMPLATE, True)]) for i in ids]

    # Text through the template and back.

    def _marked(self, value: Any) -> Any:
        """A value for the template, with marks around every text that holds a control token."""
        if isinstance(value, str):
            plain = value
            for mark in _MARKS:
                plain = plain.replace(mark, "\ufffd")
            return f"{_MARKS[0]}{plain}{_MARKS[1]}" if self._pattern.search(plain) else plain
        if isinstance(value, dict):
            return {self._marked(key): self._marked(item) for key, item in value.items()}
        return [self._marked(item) for item in value] if isinstance(value, list | tuple) else value

    def _spans(self, text: str, owner: Owner) -> list[Span]:
        """A rendered text without its marks; what stood between them means no control token."""
        first, *others = text.split(_MARKS[0])
        spans = [Span(first, owner, True)]
        for part in others:
            inside, _, outside = part.partition(_MARKS[1])
            spans += [Span(inside, owner), Span(outside, owner, True)]
        return [span for span in spans if span.text]

    def _template(self, spans: Sequence[Span]) -> list[Piece]:
        return self._pieces([span for span in spans if span.text])


def _exact(arguments: Any) -> str:
    """Arguments as text in which 2 and "2", or true and 1, differ."""
    return json.dumps(dict(arguments), sort_keys=True, ensure_ascii=False, default=str)
