"""The checks of one dialogue behind the audit's metrics: each says how much of how much, and what is wrong.

Invariant: a check returns None where nothing could have gone wrong, and never looks at more than the dialogue and the
facts of its task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Event, Kind
from muarl_cli.conversation.protocols import Stage
from muarl_cli.errors import MuarlError
from muarl_cli.users.dialogue import Dialogue
from muarl_cli.users.facts import Facts
from muarl_cli.users.hearing import Act
from muarl_cli.users.injectors import Injector, mistyped
from muarl_cli.worlds.language import said, value_text
from muarl_cli.worlds.scenario import Scenario

_TYPED = re.compile(r"(?<![\w@])(?:\d{3,}|[\w.+-]+@[\w-]+\.\w+)(?![\w@])")
"""what looks like an id, a phone number or an email"""
_AGENT_TALK = re.compile(
    r"how (can|may) i (help|assist)|(can|may) i (help|assist) you|anything else i can|i('ll| will) transfer you"
    r"|let me (check|look|pull) .{0,40}\bfor you|i have (now )?(updated|cancelled|canceled|processed|changed) your"
    r"|please provide your|thank you for (calling|contacting)|as an ai\b|language model|i am (here )?to (help|assist)"
    r"|shall i (go ahead|proceed)|would you like me to|<tool_call>|\{\"name\"|your (order|loan|request) has been",
    re.I,
)
MISTYPED = f"inject:{Injector.WRONG_THEN_CORRECT.value}"
AFTER_WRITE = Injector.MIND_CHANGE_AFTER_WRITE.value
_HAS_MOVED = frozenset({Act.REPORT, Act.REFUSAL, Act.TRANSFER})
_CLOSES = frozenset({Act.REPORT, Act.MORE, Act.BYE})
_GENERAL = frozenset({Act.ASK_MORE, Act.PROPOSAL, Act.REPORT, Act.REFUSAL})
"""turns after which a fact is no unprompted one: they ask for more, or name values that may be wrong"""


class Score(NamedTuple):
    """`part` of `whole`; `allowed` of the part is planned by the brief."""

    part: float
    whole: float
    what: str = ""
    allowed: float = 0.0


def _any(findings: list[str]) -> Score:
    """A dialogue with findings counts once."""
    return Score(float(bool(findings)), 1.0, "; ".join(findings[:3]))


def ungrounded(talk: Dialogue) -> Score:
    """S1: typed or domain values that are neither the user's own nor were said to them before."""
    known, hidden = talk.facts.known(), {value.lower() for value in talk.facts.hidden()}
    numbers = _TYPED.findall(known)
    heard, found, typos = "", [], list[str]()
    for turn in talk.turns:
        heard += " " + turn.heard.lower()
        if MISTYPED in turn.tags:  # the rest of an opening in parts may hold the number
            typos = [typo for number in numbers for typo in mistyped(number)]
        text = turn.text.lower()
        values = _TYPED.findall(text) + talk.facts.vocabulary.values_in(text)
        found += [v for v in values if not said(v, known) and not said(v, heard) and v not in typos and v not in hidden]
    return _any(found)


def unknown_given(talk: Dialogue) -> Score | None:
    """S2: values of facts that the user does not know, before anybody told them."""
    hidden = talk.facts.hidden()
    if not hidden:
        return None
    heard, found = "", []
    for turn in talk.turns:
        heard += " " + turn.heard
        found += [value for value in sorted(hidden) if said(value, turn.text) and not said(value, heard)]
    return _any(found)


def unprompted(talk: Dialogue) -> Score | None:
    """S3: facts of later requests told before anybody asked for them."""
    told = early = planned = 0
    found = []
    seen = {(slot, value_text(talk.facts.goals[0].slots[slot])) for slot in talk.facts.goals[0].slots}
    for goal in talk.facts.goals[1:]:
        for slot in talk.language.intents[goal.intent].slots:
            value = value_text(goal.slots[slot])
            hinted = any(said(goal.slots[slot], hint) for hint in goal.unknown.values())
            if slot in goal.unknown or (slot, value) in seen or hinted:
                continue
            seen.add((slot, value))
            at = next((k for k, turn in enumerate(talk.turns) if said(goal.slots[slot], turn.text)), None)
            if at is None:
                continue
            told += 1
            if _prompted(talk, slot, at):
                continue
            early += 1
            if slot in goal.tell_first:
                planned += 1
            else:
                found.append(f"{slot} {value}")
    return Score(early, told, "; ".join(found[:3]), planned) if told else None


def _prompted(talk: Dialogue, slot: str, at: int) -> bool:
    """Whether the fact was asked for by then; a turn that moves on to a new request answers nothing."""
    now = talk.turns[at]
    opens = any(line in now.text for goal in talk.facts.goals[1:] for line in talk.language.intents[goal.intent].open)
    if not opens and _GENERAL & set(now.acts):
        return True
    return any(slot in turn.asked for turn in talk.turns[: at + 1])


def coverage(talk: Dialogue) -> Score | None:
    """S4: requests raised, of all, where the user ended the conversation as somebody who is done."""
    if not talk.stopped or talk.gave_up:
        return None
    goals = talk.facts.goals
    missing = [f"request {n + 1} ({goal.intent})" for n, goal in enumerate(goals) if not talk.raised(n)]
    return Score(len(goals) - len(missing), len(goals), "; ".join(missing))


def premature(talk: Dialogue) -> Score | None:
    """S5: the user ends it with an agreed write pending, a question unanswered, or a request not raised."""
    end = talk.episode.end
    by_user = (
        talk.stopped or end.reason is EndReason.OUT_OF_SCOPE or (end.reason is EndReason.TRANSFER and not end.detail)
    )
    if not by_user or not talk.turns:
        return None
    if _write_pending(talk):
        return _any(["a write was agreed to and nothing came of it"])
    if talk.gave_up or not talk.stopped:
        return _any([])
    last = talk.turns[-1]
    # which request is open is certain for scripted users alone: they raise each in the domain's words
    acts = {last.acts[last.open]} if last.acts and _scripted(talk) else set(last.acts)
    if {Act.ASK, Act.PROPOSAL} & acts and not last.writes:
        return _any(["the agent's last question is unanswered"])
    missing = coverage(talk)
    return _any([missing.what] if missing and missing.what else [])


def _scripted(talk: Dialogue) -> bool:
    return talk.episode.user.get("backend") == "scripted"


def _write_pending(talk: Dialogue) -> bool:
    """Whether the last consent was to a write that was neither made nor refused nor reported.

    A consent to what was done before is none; nor, for scripted users, who take silence after a write for its report,
    one after any write for the open request.
    """
    scripted = _scripted(talk)
    pending = wrote = False
    done: set[str] = set()
    for at, turn in enumerate(talk.turns):
        done |= {call.name for call in turn.writes}
        wrote = wrote or bool(turn.writes)
        if turn.writes or _HAS_MOVED & set(turn.acts):
            pending = False
        if talk.agrees(at):
            intents = [talk.language.intents[talk.facts.goals[n].intent] for n in talk.proposed(at)]
            again = bool(intents) and all(intent.write in done for intent in intents)
            pending = not (again or (scripted and wrote))
        if turn.moved:
            wrote = False
    return pending


def _overrun(episode: Episode) -> Score:
    """S6: cut off by the turn limit although all that was wanted is done."""
    state, end = episode.state, episode.end
    done = bool(state.gold) and state.final == state.gold and state.gold != state.initial
    capped = end.reason is EndReason.LIMIT_AGENT and "counted turns" in end.detail
    return _any([end.detail] if done and capped else [])


def overrun(talk: Dialogue) -> Score:
    """S6, and the agent has closed the matter more often than there are requests, after the last write."""
    last = max((at for at, turn in enumerate(talk.turns) if turn.writes), default=0)
    closings = sum(bool(_CLOSES & set(turn.acts)) for turn in talk.turns[last:])
    score = _overrun(talk.episode)
    return score if closings > len(talk.facts.goals) + 1 else _any([])


def _role_confusion(episode: Episode) -> Score:
    """S7: the user talks as the agent does."""
    texts = [e.text for e in episode.events if e.actor is Actor.USER and e.kind is Kind.SAY]
    return _any([found.group() for text in texts for found in [_AGENT_TALK.search(text)] if found])


def role_confusion(talk: Dialogue) -> Score:
    return _role_confusion(talk.episode)


FROM_LOG: dict[str, Callable[[Episode], Score]] = {"S6": _overrun, "S7": _role_confusion}


def contradiction(talk: Dialogue) -> Score:
    """S8: a fact given with a value that it never has, or with its old one after a change was voiced.

    A word counts for a slot where no other slot of the domain has it; a number or an email where a telling line of the
    domain says whose it is.
    """
    found = []
    hints = " | ".join(hint for goal in talk.facts.goals for hint in goal.unknown.values())
    typo = False
    for at, turn in enumerate(talk.turns):
        typo = typo or MISTYPED in turn.tags
        for slot, value in _claims(talk, turn.text):
            if said(value, turn.heard) or said(value, hints) or (typo and _is_typo(talk, slot, value)):
                continue
            rows = [goal for goal in talk.facts.goals if slot in goal.slots]
            allowed = {value_text(row[slot]).lower() for goal in rows for row in (goal.slots, goal.final)}
            outdated = {
                value_text(goal.slots[slot]).lower()
                for n, goal in enumerate(talk.facts.goals)
                if goal.change and goal.change.slot == slot and talk.voiced(n, at)
            }
            still = {
                value_text(row[slot]).lower()
                for n, goal in enumerate(talk.facts.goals)
                if slot in goal.slots
                for row in ((goal.final,) if talk.voiced(n, at) else (goal.slots, goal.final))
            }
            if rows and (value not in allowed or value in outdated - still):
                found.append(f"{slot} {value}")
    return _any(found)


def _is_typo(talk: Dialogue, slot: str, value: str) -> bool:
    return any(value in mistyped(value_text(goal.slots[slot])) for goal in talk.facts.goals if slot in goal.slots)


def _claims(talk: Dialogue, text: str) -> list[tuple[str, str]]:
    """(slot, value) pairs that the words state."""
    lowered = text.lower()
    slots = sorted({slot for goal in talk.facts.goals for slot in goal.slots})
    claims = [
        (slot, value)
        for slot in slots
        for value in sorted(talk.facts.vocabulary.by_slot.get(slot, ()))
        if value in lowered and said(value, lowered)
    ]
    for slot in (slot for slot in slots if slot in talk.language.slots):
        for line in talk.language.slots[slot].tell:
            before, _, after = line.lower().partition("{v}")
            if len(before) < 8:
                continue  # "it is {v}." says nothing about whose value it is
            pattern = re.escape(before) + r"(\d{3,}|\S+@\S+\w)" + re.escape(after[:1])
            claims += [(slot, value) for value in re.findall(pattern, lowered)]
    return claims


def change_voiced(talk: Dialogue) -> Score | None:
    """S13: planned changes voiced, of those whose time came: the old values were agreed to, or done and reported."""
    due = voiced = 0
    missing = []
    for number, goal in enumerate(talk.facts.goals):
        if goal.change is None:
            continue
        if talk.voiced(number, len(talk.turns)):
            due, voiced = due + 1, voiced + 1
        elif _came_due(talk, number):
            due += 1
            missing.append(f"request {number + 1}: {goal.change.slot} {value_text(goal.change.value)}")
    return Score(voiced, due, "; ".join(missing)) if due else None


def _came_due(talk: Dialogue, number: int) -> bool:
    goal = talk.facts.goals[number]
    intent = talk.language.intents[goal.intent]
    first = talk.language.write_call(intent, goal.slots)
    waits = AFTER_WRITE in (talk.episode.user.get("injectors") or {})
    for at, turn in enumerate(talk.turns):
        agreed = talk.agrees(at) and number in talk.proposed(at) and turn.open == number
        if agreed and not waits and at + 1 < len(talk.turns):
            return not intent.then_transfer or not talk.episode.end.detail
        done = any(call.name == intent.write and dict(call.arguments or {}) == first for call in turn.writes)
        if done and turn.open == number and Act.REPORT in turn.acts and at + 1 < len(talk.turns):
            return True
    return False


def truthful(talk: Dialogue) -> Score | None:
    """S14: consents to proposals that name what is wanted at that time, of all consents."""
    at = [k for k in range(len(talk.turns)) if talk.agrees(k)]
    wrong = [talk.turns[k].heard for k in at if not talk.proposed(k)]
    return Score(len(at) - len(wrong), len(at), "; ".join(text[-80:] for text in wrong[:2])) if at else None


def replays(episode: Episode, facts: Facts, scenario: Scenario) -> Score | None:
    """S15: a scripted user opened again, with the same seed and the same agent turns, says the same to the byte."""
    from muarl_cli.users.agenda import AgendaUsers

    if facts.language is None:
        return None
    try:
        users = AgendaUsers(facts.language, episode.user.get("injectors"))
    except MuarlError:  # the log names injectors that this version does not know
        return None
    tools = tuple(getattr(scenario, "tools", ()))
    seed = int(episode.user.get("seed", episode.seed))
    user = users.open(
        Stage(scenario.name, scenario.policy, scenario.compact, tools, scenario.greeting, seed),
        facts.task,  # type: ignore[arg-type]
    )
    news: list[Event] = []
    ended = False
    for event in episode.events:
        if event.actor is Actor.USER and event.kind is Kind.SAY:
            if ended:
                return Score(0.0, 1.0, f"event {event.i}: goes on after the user ended it")
            turn = _now(user.respond(news))
            if (turn.text, tuple(turn.tags)) != (event.text, event.tags):
                return Score(0.0, 1.0, f"event {event.i}: {turn.text[:60]!r} instead of {event.text[:60]!r}")
            news, ended = [], turn.end is not None
        news.append(event)
    return Score(1.0, 1.0)


def _now(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a scripted user waits for nothing")
