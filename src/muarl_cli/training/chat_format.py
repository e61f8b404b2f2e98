"""The chat format as an append-only token list: Qwen3 without thinking, Hermes tool calls.

A conversation is a list of tokens that only grows; each token is tagged with who produced it. What the policy sampled
is kept as sampled, never rendered and tokenised again. Invariants: ids of earlier turns never change; AGENT owns
exactly the sampled tokens, the end of turn included where it was sampled; text of users, tools and policies can never
become a control token, so nobody forges a turn. The decoded list equals what the checkpoint's `chat_template.jinja`
renders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any

from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import Owner, Stage, TokenRow
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.training.hermes import parse_turn, render_turn

Piece = tuple[tuple[int, ...], Owner]
"""Token ids and the party that produced all of them."""

START, END, STOP = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
GENERATION_PROMPT = f"{START}assistant\n<think>\n\n</think>\n\n"
_TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, '
    '"arguments": <args-json-object>}\n</tool_call>'
)


class Rendering(StrEnum):
    """How the system turn tells the agent what it is and what it can call."""

    FULL = "full"
    """policy and JSON Schemas, as Qwen3 was trained on"""
    COMPACT = "compact"
    """one line for the scenario, one line a tool (name and argument names): for tiny models"""


@dataclass(frozen=True)
class Span:
    text: str
    owner: Owner
    control: bool = False
    """whether control-token text in it means the control token (only ever true of the format's own text)"""


@dataclass
class TokenList:
    """A growing conversation. Only `extend` and `sampled` change it, and only at the end."""

    ids: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def extend(self, pieces: Iterable[Piece]) -> None:
        for ids, owner in pieces:
            self.ids.extend(ids)
            self.owners.extend([int(owner)] * len(ids))
            self.logprobs.extend([0.0] * len(ids))

    def sampled(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Tokens the policy sampled, with their log-probabilities."""
        if len(ids) != len(logprobs):
            raise ValueError(f"{len(ids)} sampled ids but {len(logprobs)} log-probabilities")
        self.ids.extend(ids)
        self.owners.extend([int(Owner.AGENT)] * len(ids))
        self.logprobs.extend(logprobs)

    def row(self) -> TokenRow:
        return TokenRow(tuple(self.ids), tuple(self.owners), tuple(self.logprobs))


class ChatFormat:
    """Turns to tokens and back, for one tokenizer and one rendering of the system turn.

    `tokenizer` is a transformers fast tokenizer or a `tokenizers.Tokenizer`. Stateless: one object serves all episodes.
    """

    def __init__(self, tokenizer: Any, rendering: Rendering | str) -> None:
        self._read(tokenizer, rendering)
        controls = self._controls
        missing = [token for token in (START, END) if token not in controls]
        if missing:
            raise MuarlError(
                f"the tokenizer has no control token {' and no '.join(missing)}",
                why="the chat format is Qwen3's: its role markers must be single tokens",
                next_step="use a Qwen3 checkpoint, one that muarl made, or the checkpoint's own template (chat=own)",
                code=ExitCode.BAD_DATA,
            )
        self.end_id = controls[END]
        self.stop_ids = tuple(controls[token] for token in (END, STOP) if token in controls)
        """a sampled turn ends with one of these"""

    def _read(self, tokenizer: Any, rendering: Rendering | str) -> None:
        self.rendering = Rendering(rendering)
        self.tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._controls = {str(token.content): int(i) for i, token in self._backend.get_added_tokens_decoder().items()}
        longest_first = sorted(self._controls, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(re.escape(token) for token in longest_first) or r"(?!)")

    # Turns of the other parties, as pieces to append.

    def begin(self, stage: Stage) -> list[Piece]:
        """The system turn: who the agent is, and what it can call."""
        own = Owner.TEMPLATE
        spans = [Span(f"{START}system\n", own, True)]
        if self.rendering is Rendering.COMPACT:
            spans.append(Span(compact_system(stage), own))
        else:
            spans.append(Span(stage.policy, own))
            if stage.offered:
                spans.append(Span(("\n\n" if stage.policy else "") + _TOOLS_HEAD, own, True))
                schemas = (json.dumps(tool.openai(), ensure_ascii=False) for tool in stage.offered)
                spans.append(Span("".join(f"\n{schema}" for schema in schemas), own))
                spans.append(Span(_TOOLS_TAIL, own, True))
        return self._pieces([*spans, Span(f"{END}\n", own, True)])

    def greeting(self, text: str) -> list[Piece]:
        """An assistant turn that nobody sampled: all of it belongs to the template."""
        own = Owner.TEMPLATE
        return self._pieces([Span(GENERATION_PROMPT, own, True), Span(text, own), Span(f"{END}\n", own, True)])

    def user(self, text: str) -> list[Piece]:
        own = Owner.TEMPLATE
        return self._pieces([Span(f"{START}user\n", own, True), Span(text, Owner.USER), Span(f"{END}\n", own, True)])

    def results(self, texts: Sequence[str]) -> list[Piece]:
        """All the results of one agent turn: one user turn with a block each."""
        own = Owner.TEMPLATE
        spans = [Span(f"{START}user", own, True)]
        for text in texts:
            spans += [Span("\n<tool_response>\n", own, True), Span(text, Owner.WORLD)]
            spans.append(Span("\n</tool_response>", own, True))
        return self._pieces([*spans, Span(f"{END}\n", own, True)])

    def news(self, events: Sequence[Event]) -> list[Piece]:
        """What happened since the agent last spoke. The agent's own calls are skipped: its tokens are there already."""
        pieces: list[Piece] = []
        results: list[str] = []
        for event in events:
            if event.actor is Actor.WORLD:
                results.append(event.text)
                continue
            if results and (event.actor is Actor.USER or event.kind is Kind.SAY):
                pieces += self.results(results)
                results = []
            if event.actor is Actor.USER and event.kind is Kind.SAY:
                pieces += self.user(event.text)
            elif event.actor is Actor.AGENT and event.kind is Kind.SAY:
                pieces += self.greeting(event.text)
        return pieces + (self.results(results) if results else [])

    # The agent's turn.

    def generation_prompt(self) -> list[Piece]:
        """What stands before every sampled turn, the empty think block included."""
        return self._pieces([Span(GENERATION_PROMPT, Owner.TEMPLATE, True)])

    def end_of_turn(self, sampled: Sequence[int]) -> list[Piece]:
        """What the template adds after a sampled turn: its end marker where it was cut, and the line break."""
        closed = bool(sampled) and sampled[-1] == self.end_id
        return self._pieces([Span("\n" if closed else f"{END}\n", Owner.TEMPLATE, True)])

    def rewrites(self, sampled: Sequence[int]) -> bool:
        """Whether a sampled turn stands otherwise in the conversation once the user has spoken again."""
        return False

    def remembered(self, sampled: Sequence[int]) -> tuple[int, ...]:
        """What is left of a sampled turn once the user has spoken again: its tokens without those of its thoughts."""
        return tuple(sampled)

    def recalled(self, sampled: Sequence[int]) -> list[Piece]:
        """An earlier turn in a conversation that is told anew: none of its tokens is trained there."""
        kept = self.remembered(sampled)
        return [*self.generation_prompt(), (kept, Owner.EARLIER), *self.end_of_turn(kept)]

    def split(self, sampled: Sequence[int]) -> tuple[str, str]:
        """A sampled turn as (what it thought, what it said), without its end marker."""
        return "", self.text_of(sampled)

    def text_of(self, sampled: Sequence[int]) -> str:
        """The text of a sampled turn, without its end marker."""
        ids = list(sampled[:-1]) if sampled and sampled[-1] in self.stop_ids else list(sampled)
        return str(self._backend.decode(ids, skip_special_tokens=False)) if ids else ""

    def parse(self, text: str, tools: Sequence[ToolSpec], first_call: int = 0) -> tuple[str, tuple[ToolCall, ...]]:
        """A turn's text to (words, calls); see `hermes.parse_turn`. `tools` are those of the episode: where arguments
        are bare text, their schemas say what it means."""
        return parse_turn(text, first_call)

    @staticmethod
    def render_turn(text: str, calls: Sequence[ToolCall]) -> str:
        """Words and calls to a turn's text; see `hermes.render_turn`."""
        return render_turn(text, calls)

    def demonstrate(
        self, text: str, calls: Sequence[ToolCall], tools: Sequence[ToolSpec], thought: str = ""
    ) -> tuple[int, ...]:
        """The ids a policy would sample for this turn, its end included. Only call tags become control tokens. Thoughts
        have no place in this format and are left out. `tools` are as in `parse`."""
        own = Owner.AGENT
        spans = [Span(text, own)] if text else []
        for call in calls:
            body = render_turn("", [call])
            opened = body.startswith("<tool_call>")
            closed = opened and body.endswith("</tool_call>")
            spans.append(Span("\n" if spans else "", own))
            spans.append(Span("<tool_call>" if opened else "", own, True))
            spans.append(Span(body[11 if opened else 0 : -12 if closed else None], own))
            spans.append(Span("</tool_call>" if closed else "", own, True))
        pieces = self._pieces([*spans, Span(END, own, True)])
        return tuple(i for ids, _ in pieces for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The exact text of a token list, control tokens included."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    # Tokens.

    def _pieces(self, spans: Sequence[Span]) -> list[Piece]:
        return list(_merge(self._tokens(spans)))

    def _tokens(self, spans: Sequence[Span]) -> Iterable[tuple[int, Owner]]:
        """Tokenise the joined text, so that a server that tokenises the whole rendering gets the same ids; a control
        token's text outside of the format's own spans is broken in two, which no control token survives."""
        text = "".join(span.text for span in spans)
        owners = [span.owner for span in spans for _ in span.text]
        control = [span.control for span in spans for _ in span.text]
        position = 0
        search_from = 0
        while found := self._pattern.search(text, search_from):
            start, end = found.span()
            if all(control[start:end]):
                yield from self._plain(text[position:start], owners[position:start])
                yield self._controls[found.group()], owners[start]
                position = search_from = end
            else:
                yield from self._plain(text[position : start + 1], owners[position : start + 1])
                position = search_from = start + 1
        yield from self._plain(text[position:], owners[position:])

    def _plain(self, text: str, owners: Sequence[Owner]) -> Iterable[tuple[int, Owner]]:
        if not text:
            return
        encoding = self._backend.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False)
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            yield token, owners[min(start, len(owners) - 1)]


def _merge(tokens: Iterable[tuple[int, Owner]]) -> Iterable[Piece]:
    run: list[int] = []
    last = Owner.TEMPLATE
    for token, owner in tokens:
        if run and owner is not last:
            yield tuple(run), last
            run = []
        run.append(token)
        last = owner
    if run:
        yield tuple(run), last


def compact_tool(tool: ToolSpec) -> str:
    """A tool in one line: its name and the names of its arguments."""
    return f"{tool.name}({', '.join(tool.parameters.get('properties', {}))})"


def compact_system(stage: Stage) -> str:
    """The system turn of the compact rendering."""
    return "\n".join([stage.compact, *(compact_tool(tool) for tool in stage.offered)])


@lru_cache(maxsize=4)
def chat_template(rendering: Rendering | str, thinking: bool = False) -> str:
    """The `chat_template.jinja` that renders this format, or its thinking twin, on any server that reads Hugging Face
    folders."""
    name = "qwen3_thinking.jinja" if thinking else "qwen3_nonthinking.jinja"
    source = (files("muarl_cli.templates") / "chat" / name).read_text(encoding="utf-8")
    switch = "{%- set compact_tools = true %}\n" if Rendering(rendering) is Rendering.COMPACT else ""
    return switch + source
