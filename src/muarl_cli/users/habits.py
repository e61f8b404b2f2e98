"""How often real users do what the injectors do, and how they talk: rates and persona weights for simulated ones.

Everything is a share of chats, counted where the chat gave the opportunity, so that a rate means what it means to an
injector: in which share of the conversations it happens. What cannot be told from a chat without a judge is not
estimated, and named. English only. Invariant: a share of nothing is absent, never zero.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from muarl_cli.conversation.events import Actor
from muarl_cli.users.dialogue import Dialogue, is_yes
from muarl_cli.users.hearing import Act
from muarl_cli.users.injectors import Injector
from muarl_cli.users.style import words_of
from muarl_cli.users.transcripts import Chat
from muarl_cli.worlds.language import said

TERSE, STANDARD = 8, 30
"""words a message (median) up to which a user is terse, or standard: what the personas' directions say"""
NOT_ESTIMATED = (
    Injector.MIND_CHANGE_BEFORE_CONFIRM,
    Injector.TANGENT,
    Injector.UNAVAILABLE_SERVICE,
)
"""what a chat shows only to somebody who judges what belongs to the matter"""
_NO = re.compile(r"^\W*(no|not yet|wait|hold on|hmm)\b", re.I)
_TYPO = re.compile(r"\btypo|mistyped|wrote (it|that) wrong|i meant\b|my mistake|\bcorrection\b", re.I)
_IMPATIENT = re.compile(
    r"(takes?|taking) (so|too|this|for ?ever|long)|how (much )?long(er)?\b.*\?|hurry|be quick|all day|ridiculous"
    r"|still waiting|waste of time|come on\b|unacceptable",
    re.I,
)
_ADVERSARIAL = re.compile(
    r"(ignore|forget) (your|the|all)\b.*\b(rules?|policy|instructions?)|new instruction|rules are not for"
    r"|i work (here|there|for you)|i(?:'m| am) (the|a|your) (manager|staff|employee|supervisor)"
    r"|skip the (check|verification|confirmation)|(another|other) (customer|member|person)"
    r"|my (neighbou?r|ex|boss|wife|husband|friend)('s| has)|without asking|spare me the question",
    re.I,
)
_PLEASE = re.compile(r"\b(please|thank|thanks|thx)\b", re.I)
_SHORT_FORM = re.compile(r"\b\w+'(m|s|re|ve|ll|d|t)\b", re.I)


@dataclass(frozen=True)
class Rate:
    """In how many chats it happened, of how many in which it could."""

    happened: int
    could: int

    @property
    def share(self) -> float:
        return self.happened / self.could


def rates_of(talks: Sequence[tuple[Chat, Dialogue]]) -> dict[Injector, Rate]:
    """The rates of the injectors that can be estimated and had an opportunity."""
    found = {}
    for name, happened in _HAPPENED.items():
        answers = [answer for chat, talk in talks if (answer := happened(chat, talk)) is not None]
        if answers:
            found[name] = Rate(sum(answers), len(answers))
    return found


def _ambiguity(chat: Chat, talk: Dialogue) -> bool | None:
    """Asked for facts, the user answers with none of them, and not that they do not know."""
    asked = [turn for turn in talk.turns if turn.asked and Act.ASK in turn.acts]
    if not asked:
        return None
    unsure = re.compile(r"\bknow\b|no idea|not sure|n't have|\bremember\b", re.I)
    return any(not _facts(talk, turn.text) and not is_yes(turn.text) and not unsure.search(turn.text) for turn in asked)


def _interrupt(chat: Chat, talk: Dialogue) -> bool | None:
    """Asked for several facts that they have, the user gives one."""
    goals = talk.facts.goals
    have = {slot for goal in goals for slot in goal.slots if slot not in goal.unknown}
    asked = [turn for turn in talk.turns if len(turn.asked & have) > 1]
    return any(_facts(talk, turn.text) == 1 for turn in asked) if asked else None


def _refuse_once(chat: Chat, talk: Dialogue) -> bool | None:
    """A right proposal gets a no without a correction, and a yes later."""
    right = [at for at, turn in enumerate(talk.turns) if Act.PROPOSAL in turn.acts and talk.proposed(at)]
    if not right:
        return None
    texts = [turn.text for turn in talk.turns]
    return any(
        _NO.search(texts[at]) and not _facts(talk, texts[at]) and any(is_yes(text) for text in texts[at + 1 :])
        for at in right
    )


def _late_change(chat: Chat, talk: Dialogue) -> bool | None:
    """Of the changes of mind: voiced after it was done."""
    changed = [goal for goal in talk.facts.goals if goal.change]
    if not changed:
        return None
    return any(
        Act.REPORT in turn.acts and any(goal.change and said(goal.change.value, turn.text) for goal in changed)
        for turn in talk.turns
    )


def _fragments(chat: Chat, talk: Dialogue) -> bool:
    first = next(place for place, message in enumerate(chat.messages) if message.actor is Actor.USER)
    opening = [message.actor for message in chat.messages[first : first + 2]]
    return opening == [Actor.USER, Actor.USER]


def _saying(pattern: re.Pattern[str]) -> Callable[[Chat, Dialogue], bool]:
    return lambda chat, talk: any(pattern.search(text) for text in _texts(chat))


_HAPPENED: Mapping[Injector, Callable[[Chat, Dialogue], bool | None]] = {
    Injector.AMBIGUITY: _ambiguity,
    Injector.MIND_CHANGE_AFTER_WRITE: _late_change,
    Injector.REFUSE_ONCE: _refuse_once,
    Injector.WRONG_THEN_CORRECT: _saying(_TYPO),
    Injector.IMPATIENCE: _saying(_IMPATIENT),
    Injector.FRAGMENTS: _fragments,
    Injector.INTERRUPT: _interrupt,
    Injector.ADVERSARIAL: _saying(_ADVERSARIAL),
}


def personas_of(chats: Sequence[Chat]) -> dict[str, dict[str, float]]:
    """Weights of the persona axes (`users.persona.AXES`): the shares of the chats. Typing slips cannot be told without
    a dictionary, so that style is never chosen."""
    counts: dict[str, Counter[str]] = {"verbosity": Counter(), "politeness": Counter(), "style": Counter()}
    for chat in chats:
        texts = _texts(chat)
        counts["verbosity"][_verbosity(texts)] += 1
        counts["politeness"][_politeness(texts)] += 1
        counts["style"][_style(texts)] += 1
    return {
        axis: {name: round(n / len(chats), 4) for name, n in sorted(found.items())} for axis, found in counts.items()
    }


def _verbosity(texts: Sequence[str]) -> str:
    words = statistics.median(len(words_of(text)) for text in texts)
    return "terse" if words <= TERSE else "standard" if words <= STANDARD else "chatty"


def _politeness(texts: Sequence[str]) -> str:
    share = sum(_PLEASE.search(text) is not None for text in texts) / len(texts)
    return "polite" if share >= 0.5 else "neutral" if share else "blunt"


def _style(texts: Sequence[str]) -> str:
    whole = " ".join(texts)
    if whole == whole.lower():
        return "lowercase"
    sentences = all(text[:1].isupper() and text.rstrip()[-1] in ".!?" for text in texts)
    return "formal" if sentences and not _SHORT_FORM.search(whole) else "plain"


def _texts(chat: Chat) -> list[str]:
    return [message.text for message in chat.messages if message.actor is Actor.USER]


def _facts(talk: Dialogue, text: str) -> int:
    """How many of the user's facts a message holds."""
    rows = [row for goal in talk.facts.goals for row in (goal.slots, goal.final)]
    return len({slot for row in rows for slot, value in row.items() if said(value, text)})
