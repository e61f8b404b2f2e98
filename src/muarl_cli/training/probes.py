"""Whether a template's chat format may be trained with: probes that are run when it is opened.

Each probe holds a small conversation in the format's tokens and compares it with what the template renders, or looks
for what must never happen. Invariant: a format that passes appends the very text that the template would, keeps sampled
ids, lets nobody write a control token, and reads back the turns that it renders. The first failure is a `MuarlError`
that names the probe and shows where two texts part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.conversation.protocols import Owner, Stage
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.training.chat_format import Rendering, compact_system
from muarl_cli.training.frames import difference, refused, result, system, turn, user
from muarl_cli.training.template_format import Inexpressible, TemplateFormat
from muarl_cli.training.threads import Thread

_KINDS: Mapping[str, Any] = {
    "key": {"type": "string"},
    "count": {"type": "integer"},
    "price": {"type": "number"},
    "exact": {"type": "boolean"},
    "note": {"type": ["string", "null"]},
    "places": {"type": "array", "items": {"type": "string"}},
    "terms": {"type": "object"},
}
_TOOLS = tuple(
    ToolSpec(name, "Look something up.", {"type": "object", "properties": _KINDS}, ToolClass.READ)
    for name in ("look_up", "reserve")
)
_STAGE = Stage("probe", "You help at a desk. Be brief.", "desk", _TOOLS, "", 0)
_THOUGHT = "Which of the two do they mean?"
_ONE = ToolCall("call_0", "look_up", {"key": 'a "quoted" name', "count": 2})
_TWO = ToolCall("call_1", "reserve", {"count": 1, "key": "größer, 東京"})
_TYPED = ToolCall(
    "call_0",
    "reserve",
    {
        "key": "48213",
        "count": 0,
        "price": -2.5,
        "exact": True,
        "note": None,
        "places": ["東京", "a\nb"],
        "terms": {"days": 3, "paid": False, "by": None},
    },
)
_TURNS: Mapping[str, tuple[str, tuple[ToolCall, ...]]] = {
    "say": ("Of course. Which one?\n\n- the first\n- the second", ()),
    "call": ("", (_ONE,)),
    "several calls": ("", (_ONE, _TWO)),
    "words and a call": ("One moment.", (_TWO,)),
}


@dataclass
class _Talk:
    """A conversation held in both ways: as tokens of the format, and as messages for the template."""

    chat: TemplateFormat
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    news: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.full = self.chat.rendering is Rendering.FULL
        self.thread = Thread(self.chat, _STAGE)
        self.messages += system(_STAGE.policy if self.full else compact_system(_STAGE))

    def greet(self, text: str) -> None:
        self._hear(Actor.AGENT, Kind.SAY, text, turn(text))

    def ask(self, text: str) -> None:
        self._hear(Actor.USER, Kind.SAY, text, user(text))

    def answer(self, calls: Sequence[ToolCall], texts: Sequence[str]) -> None:
        for place, (call, text) in enumerate(zip(calls, texts, strict=True)):
            self._hear(Actor.WORLD, Kind.RESULT, text, result(call.name, text, place), CallRecord(call.id, call.name))

    def act(self, probe: str, text: str, calls: Sequence[ToolCall] = ()) -> None:
        """The policy's turn, before which both ways must have come to the same text."""
        self.compare(probe)
        thought = _THOUGHT if self.chat.frames.thought else ""
        ids = self.chat.demonstrate(text, calls, _TOOLS, thought)
        self.thread.sampled(ids, [0.0] * len(ids))
        self.messages.append(turn(text, [(call.name, call.arguments) for call in calls], thought))

    def compare(self, probe: str) -> None:
        self.thread.hear(self.news)
        self.news = []
        tools = [tool.openai() for tool in _TOOLS] if self.full else []
        wanted = self.chat.render(self.messages, probe, tools=tools, prompt=True)
        found = self.chat.decode(self.thread.ask())
        if wanted != found:
            raise refused(probe, f"appending turn by turn gives another text: {difference(wanted, found)}")

    def _hear(self, actor: Actor, kind: Kind, text: str, message: Any, call: CallRecord | None = None) -> None:
        self.messages.append(message)
        self.news.append(Event(len(self.messages), actor, kind, text, call))


def append_only(chat: TemplateFormat) -> None:
    """(a) Said turn by turn, a conversation is the text that the template renders at every point of it."""
    talk = _Talk(chat)
    talk.greet("Hello! What can I do?")
    talk.ask("I lost my key.")
    talk.act("greeting", *_TURNS["call"])
    talk.answer([_ONE], ['{"found": true}'])
    talk.act("results", *_TURNS["say"])
    talk.ask("The first.\nPlease hurry: 東京 is far.")
    talk.act("user", *_TURNS["several calls"])
    talk.answer([_ONE, _TWO], ["first\nanswer", "Error: second"])
    talk.act("several calls", *_TURNS["words and a call"])
    talk.answer([_TWO], ["done"])
    talk.act("results", "All done.")
    talk.ask("Thanks.")
    talk.compare("user")


def keeps_sampled_ids(chat: TemplateFormat) -> None:
    """(b) Ids that no tokenizer would give are kept, wherever a turn was cut and whatever follows."""
    odd = [i for letter in "odd  words {" for i in chat.tokenizer.encode(letter, add_special_tokens=False)]
    thread = Thread(chat, _STAGE)
    drawn: list[int] = []
    for ids in ((*odd, chat.end_id), tuple(odd), (chat.end_id,)):
        thread.hear([Event(0, Actor.USER, Kind.SAY, "go on")])
        thread.ask()
        thread.sampled(ids, [-1.0] * len(ids))
        drawn += ids
    kept = [i for row in thread.rows() for i, owner in zip(row.ids, row.owners, strict=True) if owner == Owner.AGENT]
    if kept != drawn:
        raise refused("sampled ids", f"{len(drawn)} tokens were sampled and {len(kept)} of them are in the rows")


def nobody_forges(chat: TemplateFormat) -> None:
    """(c) A turn begins and ends with control tokens, and no text of a party becomes one."""
    frames = chat.frames
    begins = {"user turn": frames.user[0], "results": frames.results[0]}
    ends = {"user turn": frames.user[1] + frames.prompt, "results": frames.results[2] + frames.prompt}
    for part, texts in {"begin": begins, "end": ends}.items():
        for name, text in texts.items():
            if not any(token in text for token in chat.controls):
                raise refused(
                    "forgery", f"the {part} of the {name} is ordinary text, {text!r}, which anybody can write"
                )
    forged = "".join(chat.controls)
    said = {
        "user": (chat.user, lambda text: [text]),
        "results": (lambda texts: chat.results(texts), lambda text: [[text]]),
        "greeting": (chat.greeting, lambda text: [text]),
        "system": (lambda text: chat.begin(Stage("probe", text, text, _TOOLS, "", 0)), lambda text: [text]),
    }
    known = {chat.decode([i]): i for i in chat.stop_ids} | dict.fromkeys(chat.controls)
    for name, (pieces, given) in said.items():
        ids = {}
        for text in ("plain", forged):
            ids[text] = [i for part, _ in pieces(*given(text)) for i in part]  # type: ignore[operator]
        counts = {text: sum(chat.decode([i]) in known for i in found) for text, found in ids.items()}
        if counts["plain"] != counts[forged]:
            raise refused("forgery", f"text of the {name} becomes a control token")


def reads_what_it_renders(chat: TemplateFormat) -> None:
    """(d) A turn that the template renders is read back as it was, with a thought and without."""
    others = {"values of all kinds": ("", (_TYPED,)), "no arguments": ("", (ToolCall("call_0", "look_up", {}),))}
    thoughts = (_THOUGHT, "") if chat.frames.thought else ("",)
    for (name, (text, calls)), meant in product({**_TURNS, **others}.items(), thoughts):
        ids = chat.demonstrate(text, calls, _TOOLS, meant)
        thought, said = chat.split(ids)
        words, found = chat.parse(said, _TOOLS)
        wanted = [(call.name, call.arguments) for call in calls]
        if words != text or [(call.name, call.arguments) for call in found] != wanted:
            why = next((call.problem for call in found if call.problem), f"it reads {words!r} and {len(found)} calls")
            raise refused(f"round trip: {name}", f"{said[:160]!r} is read otherwise than it was meant: {why}")
        if thought != meant:
            raise refused(f"round trip: {name}", f"the thought {meant!r} is read as {thought!r}")


PROBES: Mapping[str, Callable[[TemplateFormat], None]] = {
    "append-only": append_only,
    "sampled ids": keeps_sampled_ids,
    "forgery": nobody_forges,
    "round trip": reads_what_it_renders,
}


def probe(chat: TemplateFormat) -> None:
    """Put a format through all probes. Raises `MuarlError` (BAD_DATA) at the first that fails."""
    try:
        for check in PROBES.values():
            check(chat)
    except Inexpressible as lost:
        raise refused("round trip", f"a call is read otherwise than it was meant: {lost.why}") from lost
