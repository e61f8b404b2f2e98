"""Kinds of damage to accepted trajectories, each with the reason it must be rejected for.

The edits that break a rule are those of `scoring.mutations`; the others break what only the other filters see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from scoring import mutations as m

from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.scenario import Task

Events = list[Event]


def _last_words(events: Events) -> int:
    return max(e.i for e in events if e.actor is Actor.AGENT and e.kind is Kind.SAY)


def _appended(events: Events, words: str) -> Events:
    at = _last_words(events)
    events[at] = replace(events[at], text=f"{events[at].text} {words}")
    return events


def invented_value(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "your case has the number 990017.")


def invented_price(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "that makes $48.90.")


def leaked_instruction(domain: Domain, task: Task, events: Events) -> Events:
    at = next(e.i for e in events if e.actor is Actor.USER)
    line = "give a fact when the agent asks for it, not before."
    events[at] = replace(events[at], text=f"{events[at].text} {line}")
    return events


def knows_too_early(domain: Domain, task: Task, events: Events) -> Events:
    """The agent greets the user with an id that only the instruction holds."""
    goal = m.goal_of(task)
    key = next(str(v) for v in goal.slots.values() if str(v).isdigit() and len(str(v)) == 4)
    first = Event(0, Actor.AGENT, Kind.SAY, f"is it about {key}?")
    return [events[0], first, *events[1:]]


def unanswered_call(domain: Domain, task: Task, events: Events) -> Events:
    at = m.place(events, ToolClass.WRITE)
    return events[: at + 1] + events[at + 2 :]


def answer_to_nothing(domain: Domain, task: Task, events: Events) -> Events:
    at = m.place(events, ToolClass.WRITE)
    stray = replace(events[at + 1], call=CallRecord("stray", "get_order", None, ToolClass.READ, True))
    return [*events[: at + 2], stray, *events[at + 2 :]]


def forged_answer(domain: Domain, task: Task, events: Events) -> Events:
    at = m.first_read(domain, task, events) + 1
    events[at] = replace(events[at], text=events[at].text.replace("open", "fine").replace("pending", "fine") + " ")
    return events


def write_that_never_was(domain: Domain, task: Task, events: Events) -> Events:
    """Another value in the call, in the words before it and in those after: only the world knows better."""
    slot = m._last_slot(domain, m.goal_of(task))
    old, new = str(m.goal_of(task).final[slot]), m._another(domain, task, slot)
    changed = []
    for event in events:
        call = event.call
        if call is not None and call.arguments is not None:
            call = replace(call, arguments=m._swap(dict(call.arguments), old, new))
        changed.append(replace(event, call=call, text=event.text.replace(old, str(new))))
    return changed


def another_language(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(
        events, "möchten sie sonst noch etwas von mir, oder ist das für sie so in ordnung und wir sind fertig?"
    )


def another_script(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "请问您还有其他需要帮助的事情吗我很乐意为您服务谢谢您的耐心等待")


def markup(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "<tool_call>")


def model_talk(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "as an ai language model i am glad to help.")


def empty_message(domain: Domain, task: Task, events: Events) -> Events:
    return [events[0], replace(events[0], text=" ", tags=()), *events[1:]]


def malformed_call(domain: Domain, task: Task, events: Events) -> Events:
    at = m.first_read(domain, task, events)
    bad = CallRecord("bad", "get_order", None, ToolClass.READ)
    asked = Event(0, Actor.AGENT, Kind.CALL, '{"order_id": ', bad)
    answer = Event(0, Actor.WORLD, Kind.ERROR, "Error: arguments are not valid JSON", replace(bad, ok=False))
    return [*events[:at], asked, answer, *events[at:]]


def unknown_tool(domain: Domain, task: Task, events: Events) -> Events:
    at = m.first_read(domain, task, events)
    bad = CallRecord("bad", "look_around", {}, None)
    asked = Event(0, Actor.AGENT, Kind.CALL, "", bad)
    answer = Event(0, Actor.WORLD, Kind.ERROR, "Error: unknown tool", replace(bad, arguments=None, ok=False))
    return [*events[:at], asked, answer, *events[at:]]


def lecture(domain: Domain, task: Task, events: Events) -> Events:
    return _appended(events, "it is good to know that we care. " * 40)


def without_the_write(domain: Domain, task: Task, events: Events) -> Events:
    at = m.place(events, ToolClass.WRITE)
    return [*events[:at], *events[at + 2 :]]


Damage = Callable[[Domain, Task, Events], Events]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "skipped authentication": (m.drop_auth, "rules/read_before_write"),
    "dropped confirmation": (m.drop_confirm, "rules/confirm_before_write"),
    "written before the yes": (m.write_before_yes, "rules/confirm_before_write"),
    "swapped value": (m.swap_confirmed_value, "rules/confirm_before_write"),
    "foreign id": (m.foreign_record, "rules/own"),
    "wrong amount": (m.wrong_amount, "rules/tell_what_was_done"),
    "report left out": (m.omit_the_report, "rules/tell_what_was_done"),
    "double read": (m.duplicate_read, "rules/no_idle_repeats"),
    "claim without a write": (without_the_write, "rules/no_false_claims"),
    "write that never was": (write_that_never_was, "state/replay_not_gold"),
    "forged answer": (forged_answer, "replay/other_answer"),
    "unanswered call": (unanswered_call, "answered/unanswered"),
    "answer to nothing": (answer_to_nothing, "answered/unasked"),
    "leaked instruction": (leaked_instruction, "leak/recited"),
    "known before it was said": (knows_too_early, "leak/hidden_value"),
    "invented value": (invented_value, "values/message"),
    "invented price": (invented_price, "values/message"),
    "another language": (another_language, "language/other"),
    "another script": (another_script, "language/script"),
    "markup in a message": (markup, "form/markup"),
    "talk of a model": (model_talk, "form/model_talk"),
    "empty message": (empty_message, "form/empty"),
    "malformed call": (malformed_call, "form/malformed_call"),
    "unknown tool": (unknown_tool, "form/unknown_tool"),
    "lecture": (lecture, "length/lecture"),
}
"""damage to the reason it must be rejected for; of "rules/own" the rest of the id is the domain's"""


def damaged(kind: str, domain: Domain, task: Task, events: Sequence[Event]) -> Events:
    """The events after this damage, numbered anew."""
    changed = DAMAGES[kind][0](domain, task, list(events))
    return [replace(event, i=i) for i, event in enumerate(changed)]


def plain_tasks(domain: Domain, tasks: Sequence[Task]) -> list[Task]:
    """The tasks on which every damage can be done: one wish about a record of one's own, which stays."""
    return m.base_for("", tasks, domain)
