"""Chat messages of TAU1 and TAU2 as events of ours.

Invariant: the event list says what the messages say and nothing else: words beside a call are tagged, since the user
never heard them; a call is classed by its desk's table; what a write touched is read off its arguments and its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from muarl_cli.benchmarks.tau2_domains import DOMAINS
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass, Write
from muarl_cli.conversation.tools import parse_arguments

HANDOVER = "transfer_to_human_agents"
GENERIC = frozenset({"think", "calculate"})
WRITES: Mapping[str, frozenset[str]] = {name: domain.writes for name, domain in DOMAINS.items()}
"""the tools of each desk that change something: a trajectory does not say it"""
_RECORDS = (("reservation_id", "reservations"), ("order_id", "orders"), ("line_id", "lines"), ("user_id", "users"),
            ("customer_id", "customers"))  # fmt: skip
"""an argument that names a record, and the table it is in; the most specific first"""
_OWNERS = ("user_id", "customer_id")


def class_of(source: str, domain: str, name: str) -> ToolClass:
    """The class of a tool; in TAU1 the hand-over ends a conversation, in TAU2 the user's token does."""
    if name in WRITES.get(domain, frozenset()):
        return ToolClass.WRITE
    if name == HANDOVER:
        return ToolClass.TERMINAL if source == "tau1" else ToolClass.GENERIC
    return ToolClass.GENERIC if name in GENERIC else ToolClass.READ


def events_of(
    messages: Iterable[Mapping[str, Any]], domain: str, source: str, tokens: Mapping[str, EndReason]
) -> tuple[tuple[Event, ...], EndReason | None]:
    """The events of a list of messages, without the end, and what the user's last token says, where there was one."""
    events: list[Event] = []
    opened: dict[str, CallRecord] = {}
    token: EndReason | None = None

    def add(actor: Actor, kind: Kind, text: str, call: CallRecord | None = None, *tags: str) -> None:
        events.append(Event(len(events), actor, kind, text, call, tags))

    for message in messages:
        role = message["role"]
        text = message.get("content") or ""
        if role == "system":
            continue
        if role == "tool":
            call = opened.pop(str(message.get("tool_call_id") or message.get("id")))
            ok = not (message.get("error") or text.startswith(("Error", "Unknown action")))
            writes = _writes(call, text) if ok else ()
            add(Actor.WORLD, Kind.RESULT if ok else Kind.ERROR, text, _answer(call, ok, writes))
            continue
        actor = Actor.USER if role == "user" else Actor.AGENT
        if actor is Actor.USER:
            for mark, reason in tokens.items():
                if mark in text:
                    token, text = reason, text.replace(mark, "").strip()
        calls = message.get("tool_calls") or ()
        opening = actor is Actor.AGENT and not any(event.actor is Actor.USER for event in events)
        if text or not calls:  # a user who says nothing but a token has spoken: both benchmarks count the turn
            add(actor, Kind.SAY, text, None, *(("beside_calls",) if calls else ("greeting",) if opening else ()))
        for place, row in enumerate(calls):
            call = _call(row, domain, source)
            opened[call.id] = call
            raw = "" if call.arguments is not None else str(row)
            add(actor, Kind.CALL, raw, call, *(("same_turn",) if place else ()))
    return tuple(events), token


def _call(row: Mapping[str, Any], domain: str, source: str) -> CallRecord:
    """TAU1 nests name and arguments in `function`, the arguments as JSON text; TAU2 has both in plain form."""
    function = row.get("function") or row
    name, given = str(function["name"]), function["arguments"]
    arguments, problem = (given, "") if isinstance(given, dict) else parse_arguments(str(given))
    return CallRecord(str(row.get("id")), name, None if problem else arguments, class_of(source, domain, name))


def _answer(call: CallRecord, ok: bool, writes: tuple[Write, ...]) -> CallRecord:
    return CallRecord(call.id, call.name, None, call.klass, ok, writes)


def _writes(call: CallRecord, text: str) -> tuple[Write, ...]:
    """What a write touched: the record that its arguments (or its answer) name, and whose it is."""
    if call.klass is not ToolClass.WRITE:
        return ()
    given = dict(call.arguments or {})
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    known = {**given, **(answer if isinstance(answer, dict) else {})}
    owner = next((str(known[name]) for name in _OWNERS if known.get(name)), "")
    place = next(((table, str(known[name])) for name, table in _RECORDS if known.get(name)), None)
    return (Write(*place, owner),) if place else ()
