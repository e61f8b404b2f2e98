"""The filters that need no model: each takes a subject and returns its reasons, none for a pass.

They read the log, the scenario and the task, and nothing else, so that every verdict can be given again from the log
alone. Invariant: a filter never raises for what an agent did; a filter that has nothing to look at passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass
from muarl_cli.scoring.findings import Layer, Verdict
from muarl_cli.scoring.trace import leaves
from muarl_cli.verification import speech
from muarl_cli.verification.facts import unknown
from muarl_cli.verification.leaks import leak
from muarl_cli.verification.replay import replay, state, won
from muarl_cli.verification.subject import Filter, Reason, Subject

_MARKUP = re.compile(
    r"</?(?:tool_call|tool_response|think|tool|function|function_call|scratchpad)\b[^>]*>|<\|\w+\|>|###[A-Z-]+###"
    r"|^\s*(?:assistant|user|system|agent|tool)\s*:|\{\s*\"(?:name|tool|function)\"\s*:|\[/?INST\]",
    re.I | re.M,
)
_MODEL_TALK = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large language model|language model)\b|\bi(?:'m| am) an ai\b"
    r"|\bmy (?:training data|system prompt|instructions? (?:say|tell|forbid))"
    r"|\bi (?:can ?not|can't|am unable to) (?:assist|help) with (?:that|this) request\b",
    re.I,
)
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
_FOREIGN_LETTERS = 0.2
"""share of letters from no script of the conversation, above which a message is in another language"""


def ended(subject: Subject) -> list[Reason]:
    """No fault ended it."""
    end = subject.episode.end
    if subject.episode.valid:
        return []
    return [Reason(Filter.ENDED, end.reason.value, end.detail or "a fault ended the conversation")]


def rules(subject: Subject) -> list[Reason]:
    """No rule of the scenario is broken, in whatever layer; the outcome has a filter of its own."""
    broken = [f for f in subject.layered.findings if f.verdict is Verdict.FAIL and f.layer is not Layer.OUTCOME]
    return [Reason(Filter.RULES, finding.rule, finding.why, finding.at) for finding in broken]


def answered(subject: Subject) -> list[Reason]:
    """Each call is answered once, before anybody speaks again, and no answer comes unasked."""
    found: list[Reason] = []
    waiting: dict[str, Event] = {}
    for event in subject.episode.events:
        if event.kind is Kind.CALL and event.call is not None:
            waiting[event.call.id] = event
        elif event.actor is Actor.WORLD and event.call is not None:
            if waiting.pop(event.call.id, None) is None:
                found.append(Reason(Filter.ANSWERED, "unasked", f"an answer of {event.call.name} to no call", event.i))
        elif event.kind is Kind.SAY and waiting:
            found += _unanswered(waiting)
    return found + _unanswered(waiting)


def _unanswered(waiting: dict[str, Event]) -> list[Reason]:
    calls, found = list(waiting.values()), []
    waiting.clear()
    for event in calls:
        name = event.call.name if event.call else ""
        found.append(Reason(Filter.ANSWERED, "unanswered", f"{name} has no answer", event.i))
    return found


def values(subject: Subject) -> list[Reason]:
    """What the agent says and passes on holds no id, price, date or address from nowhere."""
    found = []
    for event, known in subject.with_known():
        words = _own_words(event)
        if words and (missing := unknown(words, known, subject.given)):
            what = "passes on" if event.kind is Kind.CALL else "says"
            code = "argument" if event.kind is Kind.CALL else "message"
            found.append(Reason(Filter.VALUES, code, f"{what} {', '.join(missing)}, which nobody gave it", event.i))
    return found


def _own_words(event: Event) -> str:
    """What the agent states in this event: words that are heard, or arguments of a call that touches the state."""
    if event.kind is Kind.SAY:
        return "" if "greeting" in event.tags else event.text
    if event.kind is Kind.CALL and event.call is not None and event.call.klass is not ToolClass.GENERIC:
        return "\n".join(json.dumps(leaf, ensure_ascii=False) for leaf in leaves(event.call.arguments or {}))
    return ""


def language(subject: Subject) -> list[Reason]:
    """The agent's messages are in the language of the user, or in that of the policy."""
    trace = subject.trace
    heard = "\n".join([subject.scenario.policy, subject.scenario.greeting, *(line.text for line in trace.user)])
    read = "\n".join(step.text for step in trace.steps)
    scripts = speech.scripts_in(heard + read)
    spoken = {speech.language_of(subject.scenario.policy)} | {
        speech.language_of("\n".join(line.text for line in trace.user))
    }
    spoken -= {""}
    found = []
    for line in trace.agent:
        if speech.foreign_letters(line.text, scripts) > _FOREIGN_LETTERS:
            script = speech.script_of(line.text).lower() or "another"
            found.append(Reason(Filter.LANGUAGE, "script", f"written in {script} script", line.at))
            continue
        parts = _SENTENCE.split(line.text) if spoken else []
        if other := {code for part in parts if (code := speech.language_of(part))} - spoken:
            why = f"speaks {'/'.join(sorted(other))}, not {'/'.join(sorted(spoken))}"
            found.append(Reason(Filter.LANGUAGE, "other", why, line.at))
    return found


def form(subject: Subject) -> list[Reason]:
    """Calls can be read, name a tool of the scenario and fit its schema; messages are words, whole, and no markup."""
    return list(_form(subject))


def _form(subject: Subject) -> Iterator[Reason]:
    for event in subject.episode.events:
        if event.actor is not Actor.AGENT or "greeting" in event.tags:
            continue
        if event.kind is Kind.CALL and event.call is not None:
            if event.call.arguments is None:
                yield Reason(
                    Filter.FORM, "malformed_call", f"the call of {event.call.name or 'no tool'} is no JSON", event.i
                )
            elif event.call.klass is None:
                yield Reason(Filter.FORM, "unknown_tool", f"there is no tool {event.call.name!r}", event.i)
            elif problem := _schema_problem(subject, event):
                yield Reason(Filter.FORM, "wrong_arguments", problem, event.i)
        elif event.kind is Kind.SAY:
            if not event.text.strip():
                yield Reason(Filter.FORM, "empty", "a message without words", event.i)
            if "cut" in event.tags:
                yield Reason(Filter.FORM, "cut", "the message was cut at the token limit", event.i)
            if markup := _MARKUP.search(event.text):
                yield Reason(Filter.FORM, "markup", f"{markup.group().strip()[:40]!r} in a message", event.i)
            if talk := _MODEL_TALK.search(event.text):
                yield Reason(Filter.FORM, "model_talk", f"talks as a model: {talk.group()[:60]!r}", event.i)


def _schema_problem(subject: Subject, event: Event) -> str:
    from muarl_cli.conversation.tools import Toolbox, ToolCall

    call = event.call
    assert call is not None
    return Toolbox(subject.scenario.tools).problem(ToolCall(call.id, call.name, call.arguments or {}))


def length(most_words: int) -> Check:
    """No message of the agent is longer than this many words."""

    def filter_(subject: Subject) -> list[Reason]:
        return [
            Reason(Filter.LENGTH, "lecture", f"{words} words in one message, at most {most_words}", line.at)
            for line in subject.trace.agent
            if (words := len(line.text.split())) > most_words
        ]

    return filter_


Check = Callable[[Subject], list[Reason]]


def chain(accept: str, most_words: int) -> Mapping[Filter, Check]:
    """The filters that need no model, in order of cost, for a setting of `accept`: all that ended well, those that won,
    or (verified) those against which nothing speaks."""
    if accept == "all":
        return {Filter.ENDED: ended}
    if accept == "outcome":
        return {Filter.ENDED: ended, Filter.STATE: won}
    return {
        Filter.ENDED: ended,
        Filter.STATE: state,
        Filter.REPLAY: replay,
        Filter.RULES: rules,
        Filter.ANSWERED: answered,
        Filter.LEAK: leak,
        Filter.VALUES: values,
        Filter.LANGUAGE: language,
        Filter.FORM: form,
        Filter.LENGTH: length(most_words),
    }
