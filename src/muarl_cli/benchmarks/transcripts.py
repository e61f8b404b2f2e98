"""An event list as the message list that TAU-bench's own evaluators and result files know.

Calls of one turn are one message, followed by their answers in order; the user's end token stands in their last words,
as their model would have said it. Invariant: calls that never reached the benchmark (refused for their form) are left
out, so that a replay of the messages ends in the state that the conversation ended in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.tools import Toolbox, ToolCall, ToolSpec, typed

END_TOKEN = {
    EndReason.USER_STOP: "###STOP###",
    EndReason.TRANSFER: "###TRANSFER###",
    EndReason.OUT_OF_SCOPE: "###OUT-OF-SCOPE###",
}
_ROLE = {Actor.AGENT: "assistant", Actor.USER: "user"}
NOTHING = "(nothing)"
"""stands for words that are not there: the official form knows no empty message"""


def messages_of(
    events: Sequence[Event], tools: Sequence[ToolSpec], user_tools: Sequence[ToolSpec] = ()
) -> list[dict[str, Any]]:
    """The messages of `events`, numbered by `turn_idx`."""
    boxes = {Actor.AGENT: Toolbox(tuple(tools)), Actor.USER: Toolbox(tuple(user_tools))}
    answers = _answers(events)
    messages: list[dict[str, Any]] = []
    for turn in _turns(events):
        party = turn[0].actor
        said = " ".join(event.text for event in turn if event.kind is Kind.SAY)
        made = [e for e in turn if e.kind is Kind.CALL and e.i in answers and _executed(e, boxes[party])]
        calls = [_call(event, _ROLE[party], boxes[party]) for event in made]
        if calls:
            messages.append({"role": _ROLE[party], "content": said or None, "tool_calls": calls})
            messages += [_answer(answers[e.i], call["id"], _ROLE[party]) for e, call in zip(made, calls, strict=True)]
        elif any(event.kind is Kind.SAY for event in turn):
            messages.append({"role": _ROLE[party], "content": said or NOTHING})
    _end(messages, events)
    return [message | {"turn_idx": place} for place, message in enumerate(messages)]


def _turns(events: Sequence[Event]) -> list[list[Event]]:
    """Events of agent and user, grouped into turns: a turn goes on with calls that belong to it."""
    turns: list[list[Event]] = []
    for event in events:
        if event.actor not in _ROLE:
            continue
        goes_on = turns and turns[-1][-1].actor is event.actor and _continues(event, turns[-1][-1])
        if goes_on:
            turns[-1].append(event)
        else:
            turns.append([event])
    return turns


def _continues(event: Event, before: Event) -> bool:
    return "same_turn" in event.tags or ("beside_calls" in before.tags and event.kind is Kind.CALL)


def _answers(events: Sequence[Event]) -> dict[int, Event]:
    """The answer to each call by the call's place; ids may come again, and the latest open call is meant."""
    open_calls: dict[str, int] = {}
    found: dict[int, Event] = {}
    for event in events:
        if event.call is None:
            continue
        if event.kind is Kind.CALL:
            open_calls[event.call.id] = event.i
        elif event.call.id in open_calls:
            found[open_calls.pop(event.call.id)] = event
    return found


def _executed(event: Event, toolbox: Toolbox) -> bool:
    call = event.call
    if call is None or call.arguments is None:
        return False
    return not toolbox.problem(ToolCall(call.id, call.name, call.arguments))


def _call(event: Event, role: str, toolbox: Toolbox) -> dict[str, Any]:
    assert event.call is not None
    return {
        "id": f"{event.call.id}-{event.i}",
        "name": event.call.name,
        "arguments": typed(event.call.arguments or {}, toolbox.get(event.call.name)),
        "requestor": role,
    }


def _answer(event: Event, call_id: str, role: str) -> dict[str, Any]:
    return {
        "role": "tool",
        "id": call_id,
        "content": event.text,
        "requestor": role,
        "error": event.kind is Kind.ERROR,
    }


def _end(messages: list[dict[str, Any]], events: Sequence[Event]) -> None:
    ends = [event.text for event in events if event.kind is Kind.END]
    token = END_TOKEN.get(EndReason(ends[-1])) if ends else None
    if token is None or not messages or messages[-1]["role"] != "user" or messages[-1].get("tool_calls"):
        return
    words = messages[-1]["content"]
    messages[-1]["content"] = token if words == NOTHING else f"{words} {token}"
