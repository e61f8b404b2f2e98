"""When an injector could have fired, read off the transcript alone: what its firing is compared with."""

from __future__ import annotations

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event
from muarl_cli.conversation.loop import Transcript
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import Domain
from muarl_cli.worlds.goals import Goal
from muarl_cli.worlds.language import said


def asks(domain: Domain, talk: Transcript) -> list[Event]:
    """Agent turns that ask for facts or propose, and are answered."""
    openings = [line.partition("{")[0] for line in domain.language.phrases["ask"]]
    endings = [line.rpartition("}")[2] for line in domain.language.phrases["confirm"]]
    return [
        e
        for e in talk.events
        if e.actor is Actor.AGENT and (any(o in e.text for o in openings) or any(e.text.endswith(x) for x in endings))
    ]


def could(injector: Injector, domain: Domain, goals: tuple[Goal, ...], talk: Transcript) -> bool:
    """Whether the transcript holds the injector's opportunity, or the trace of it."""
    users = [e for e in talk.events if e.actor is Actor.USER]
    match injector:
        case Injector.FRAGMENTS | Injector.WRONG_THEN_CORRECT:
            return True
        case Injector.MIND_CHANGE_BEFORE_CONFIRM:
            return any(goal.change for goal in goals)
        case Injector.MIND_CHANGE_AFTER_WRITE:
            return any(goal.change and not domain.language.intents[goal.intent].then_transfer for goal in goals)
        case Injector.REFUSE_ONCE:
            return any(e.text in domain.language.phrases["agree"] for e in users)
        case Injector.TANGENT | Injector.UNAVAILABLE_SERVICE | Injector.ADVERSARIAL:
            return bool(asks(domain, talk))
        case Injector.INTERRUPT:
            return any(" and " in e.text for e in asks(domain, talk) if "?" not in e.text)
        case Injector.AMBIGUITY:
            names = {slot.words: name for name, slot in domain.language.slots.items()}
            intents = domain.language.intents
            for event in asks(domain, talk):
                wanted = [name for words, name in names.items() if words in event.text and "?" not in event.text]
                told = " ".join(e.text for e in users if e.i < event.i)
                opened = [goal for goal in goals if any(line in told for line in intents[goal.intent].open)]
                for goal in opened[-1:]:
                    if any(s in goal.slots and s not in goal.unknown and not said(goal.slots[s], told) for s in wanted):
                        return True
            return False
        case Injector.IMPATIENCE:
            answered = users[:-1] if talk.end.reason is EndReason.USER_STOP else users
            return any(
                event.text not in domain.language.phrases["agree"]
                and (number >= 2 or "sorry" in talk.events[event.i - 1].text)
                for number, event in enumerate(answered)
                if number
            )
