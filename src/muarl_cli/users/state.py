"""What code holds about a user while a model words the turns: the plan of each turn, and consent that is outstanding.

On scenarios with goals the agenda decides everything (acts, facts, changes, consent, the end) and the model is shown
what to convey and nothing else: a fact that is not to be told is not in its prompt. Elsewhere the model plays from the
scenario's prompt and code holds what it can: the model's end token is a vote, and a vote is not carried out while a
write that was consented to is outstanding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.events import Actor, Event, ToolClass
from muarl_cli.conversation.protocols import Stage, UserTurn
from muarl_cli.users.agenda import AgendaUser
from muarl_cli.users.fidelity import Broken, Expected, affirms, asks_consent, check, stems, values_in
from muarl_cli.users.hearing import Act, hear
from muarl_cli.users.messages import heard, own_results
from muarl_cli.users.persona import Persona
from muarl_cli.worlds.language import Language, said, value_text

PENDING_TURNS = 2
"""agent turns that neither report nor refuse, after which a consent no longer holds a user back from leaving"""
_MAY_BE_VALUE = re.compile(r"[\d@]")
_SETTLED = frozenset({Act.REPORT, Act.REFUSAL, Act.TRANSFER, Act.MORE, Act.BYE})


@dataclass(frozen=True)
class Verdict:
    """The judgement of one wording: the turn (None where it may not be said), and what was wrong with it. A turn beside
    `broken` is one whose vote to end was not carried out."""

    turn: UserTurn | None
    broken: tuple[Broken, ...] = ()


_SILENT = Verdict(None, (Broken.EMPTY,))


class UserState(Protocol):
    """The code's side of one user that is worded by a model."""

    async def hear(self, news: Sequence[Event]) -> UserTurn | None:
        """Take in what happened. A turn that needs no wording (a call to the user's own tool) is returned at once."""
        ...

    def prompt(self) -> str:
        """The system prompt for this turn."""
        ...

    def judge(self, words: str, end: EndReason | None) -> Verdict: ...

    def accept(self, turn: UserTurn) -> None:
        """This is what was said."""
        ...

    def fallback(self) -> UserTurn | None:
        """The turn without the model, None where there is none."""
        ...


class FreeState:
    """The model plays from a prompt; code watches consent, roles, recited instructions and values from nowhere."""

    def __init__(self, prompt: str, rules: str, gated: bool = True) -> None:
        """`prompt` is the whole system prompt, `rules` the part of it that is the same for all tasks. Where it is not
        `gated`, only silence is refused, and every vote to end is carried out."""
        self._prompt, self._rules, self._gated = prompt, rules, gated
        self._known = [prompt]
        self._earlier: list[tuple[str, str]] = []
        self._heard = ""
        self._pending = 0
        """agent turns for which a consent still holds the user back"""

    async def hear(self, news: Sequence[Event]) -> UserTurn | None:
        answers = own_results(news)
        if answers:  # the user has looked at their own device: what they heard last still stands
            self._known += [event.text for event in answers]
            return None
        self._heard = heard(news)
        self._known.append(self._heard)
        wrote = any(e.actor is Actor.WORLD and e.call and e.call.klass is ToolClass.WRITE and e.call.ok for e in news)
        settled = hear(self._heard, (), {}, (), True).act in _SETTLED
        if wrote or settled:
            self._pending = 0
        return None

    def prompt(self) -> str:
        return self._prompt

    def judge(self, words: str, end: EndReason | None) -> Verdict:
        if not self._gated:
            return Verdict(UserTurn(words, end)) if words or end is not None else _SILENT
        agrees = asks_consent(self._heard) and affirms(words)
        if end is not None and (self._pending or agrees):
            if not words:
                return Verdict(None, (Broken.STOP_PENDING,))
            broken = self._check(words, None)
            return Verdict(None if broken else UserTurn(words), (Broken.STOP_PENDING, *broken))
        broken = self._check(words, end)
        return Verdict(None if broken else UserTurn(words, end), broken)

    def _check(self, words: str, end: EndReason | None) -> tuple[Broken, ...]:
        return check(
            words,
            end,
            Expected(known=" ".join(self._known), rules=self._rules, earlier=tuple(self._earlier), heard=self._heard),
        )

    def accept(self, turn: UserTurn) -> None:
        agrees = asks_consent(self._heard) and affirms(turn.text)
        self._pending = PENDING_TURNS if agrees else max(0, self._pending - 1)
        self._earlier.append((self._heard, turn.text))
        self._known.append(turn.text)

    def fallback(self) -> UserTurn | None:
        return None


class AgendaState:
    """An agenda decides, the model words. See `users.agenda` for what is decided."""

    def __init__(self, agenda: AgendaUser, stage: Stage, persona: Persona, gated: bool = True) -> None:
        self.agenda, self._gated = agenda, gated
        self._persona = persona
        self._rules = template("user_wording.jinja")
        self._vocabulary = _enumerated(stage, agenda.language)
        self._known: list[str] = []
        self._earlier: list[tuple[str, str]] = []
        self._heard = ""
        self._plan = UserTurn()
        self._values = _all_values(agenda)
        self._must: list[Any] = []
        """what the plan says that only these words can say: values, hints to unknown ones, numbers"""

    async def hear(self, news: Sequence[Event]) -> UserTurn | None:
        self._plan = await self.agenda.respond(news)
        self._must = self._said_by_plan()
        self._heard = heard(news)
        self._known.append(self._heard)
        return self._plan if self._plan.calls or not self._plan.text else None

    def prompt(self) -> str:
        return render(
            "user_wording.jinja",
            plan=self._plan.text,
            exact=[value_text(value) for value in self._must],
            yes=self._consents(),
            leaves=self._plan.end is not None,
            persona=self._persona.directions,
        )

    def judge(self, words: str, end: EndReason | None) -> Verdict:
        """The end is the agenda's; the model's token is a vote that changes nothing."""
        if not self._gated:
            return Verdict(UserTurn(words, self._plan.end, tags=self._plan.tags)) if words else _SILENT
        broken = check(words, None, self._expected())
        vote: tuple[Broken, ...] = ()
        if end is not None and self._plan.end is None:
            vote = (Broken.STOP_PENDING if self.agenda.consented else Broken.EARLY_STOP,)
        turn = None if broken else UserTurn(words, self._plan.end, tags=self._plan.tags)
        return Verdict(turn, tuple(dict.fromkeys((*vote, *broken))))

    def accept(self, turn: UserTurn) -> None:
        self._earlier.append((self._heard, turn.text))
        self._known.append(turn.text)

    def fallback(self) -> UserTurn | None:
        return UserTurn(self._plan.text, self._plan.end, tags=self._plan.tags)

    def _consents(self) -> bool:
        return self.agenda.consented and affirms(self._plan.text)

    def _said_by_plan(self) -> list[Any]:
        plan = self._plan.text
        values = [value for value in self._values if said(value, plan)]
        hints = [hint for goal in self.agenda.goals for hint in goal.unknown.values() if hint and hint in plan]
        covered = " ".join(value_text(item) for item in (*values, *hints))
        numbers = [word for word in _numbers(plan) if not said(word, covered)]
        return [*values, *hints, *numbers]

    def _topics(self) -> tuple[frozenset[str], ...]:
        """The wishes that the plan raises, as stems of all their wordings."""
        plan, intents = self._plan.text, self.agenda.language.intents
        raised = {goal.intent for goal in self.agenda.goals if any(line in plan for line in intents[goal.intent].open)}
        return tuple(stems(" ".join((*intents[name].open, intents[name].propose))) for name in sorted(raised))

    def _expected(self) -> Expected:
        plan = self._plan.text
        known = " ".join((*self._known, plan))
        outdated = [
            (goal.slots[goal.change.slot], goal.change.value)
            for number, goal in enumerate(self.agenda.goals)
            if goal.change and number in self.agenda.changed and number == self.agenda.at
        ]
        return Expected(
            known=known,
            rules=self._rules,
            must=tuple(self._must),
            topics=self._topics(),
            hidden=tuple(value for value in self._values if not said(value, plan)),
            vocabulary=self._vocabulary,
            outdated=tuple(outdated),
            consent=self._consents(),
            asked=asks_consent(self._heard),
            goes_on=self._plan.end is None,
            plan=plan,
            earlier=tuple(self._earlier),
            heard=self._heard,
        )


def _all_values(agenda: AgendaUser) -> list[Any]:
    """All values of the task, first and final ones."""
    rows = [row for goal in agenda.goals for row in (goal.slots, goal.final)]
    found = {value_text(value): value for row in rows for value in row.values()}
    return [value for text, value in found.items() if text]


def _numbers(text: str) -> list[str]:
    """Words with a digit or an e-mail address, as they stand in the text."""
    words = (word.strip(".,;:!?()\"'") for word in text.split() if _MAY_BE_VALUE.search(word))
    return list(dict.fromkeys(word for word in words if values_in(word, True)))


def _enumerated(stage: Stage, language: Language) -> tuple[str, ...]:
    """Values that tools enumerate, without those that are ordinary words of the domain's own sentences."""
    found = dict.fromkeys(value for tool in stage.tools for value in tool.enumerated)
    return tuple(value for value in found if value and not said(value, language.ordinary))


@lru_cache(maxsize=16)
def template(name: str) -> str:
    """The source of a prompt template that ships with the package."""
    return (resources.files("muarl_cli.templates") / "prompts" / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """A prompt from its template; values are never read as a template themselves."""
    return str(_compiled(name).render(**values))


@lru_cache(maxsize=16)
def _compiled(name: str) -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template(name))
