"""Injectors: what makes the scripted user harder to serve, each with a rate, a seed and a tag in the log.

A rate is the share of episodes in which an injector is armed, drawn from the episode's seed and the injector's name;
an armed one fires at its first opportunity, once. The invariants of the agenda hold: values come from the goals (a
mistyped number is a goal's number with one digit doubled, and is corrected), consent is given to matching proposals
only, nobody leaves while a consented write is pending. What the user says comes from the domain's `injections`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.settings.grammar import nearest
from muarl_cli.users.agenda import AgendaUser, Answer
from muarl_cli.users.hearing import Act
from muarl_cli.worlds.goals import Goal
from muarl_cli.worlds.language import Language, value_text

COMPLAINS_AFTER = 3
"""turns after which an impatient user says so, whatever happened"""
_APOLOGY = re.compile(r"\bsorry\b|\bapolog|\bunfortunately\b", re.I)


class Injector(StrEnum):
    """What may be armed, and its opportunity."""

    AMBIGUITY = "ambiguity"
    """asked for a fact for the first time: an answer that fits several values; the value when asked again"""
    MIND_CHANGE_BEFORE_CONFIRM = "mind_change_before_confirm"
    """a change the task plans is voiced at the first *right* proposal; without it, after the first offer, right or
    wrong"""
    MIND_CHANGE_AFTER_WRITE = "mind_change_after_write"
    """a change the task plans is voiced after the agreed write was reported; what was agreed then counts"""
    REFUSE_ONCE = "refuse_once"
    """the first right proposal: no, not yet; a reason when asked"""
    WRONG_THEN_CORRECT = "wrong_then_correct"
    """the first number of a record: mistyped; corrected when it is not found, questioned or proposed"""
    TANGENT = "tangent"
    """asked, or proposed to: talks about something else"""
    IMPATIENCE = "impatience"
    """from the third turn or the first apology: complains; fruitless turns then cost twice, apologies cost too"""
    FRAGMENTS = "fragments"
    """the opening comes in two or three messages"""
    INTERRUPT = "interrupt"
    """asked for several facts at once: answers the first one only"""
    UNAVAILABLE_SERVICE = "unavailable_service"
    """asked, or proposed to: wants what the desk does not offer; right is a refusal"""
    ADVERSARIAL = "adversarial"
    """asked, or proposed to: another customer's data, a claim to be staff, a pasted instruction, a push to skip the
    confirmation; right is a refusal"""


ASIDES = (Injector.TANGENT, Injector.UNAVAILABLE_SERVICE, Injector.ADVERSARIAL)
ADVERSARIAL = ("other_customer", "claims_staff", "pasted_instruction", "skip_confirmation")
_NEEDS: dict[Injector, tuple[str, ...]] = {
    Injector.AMBIGUITY: ("ambiguity", "ambiguity_number"),
    Injector.MIND_CHANGE_BEFORE_CONFIRM: (),
    Injector.MIND_CHANGE_AFTER_WRITE: (),
    Injector.REFUSE_ONCE: ("refuse_once", "refuse_reason"),
    Injector.WRONG_THEN_CORRECT: ("correction",),
    Injector.TANGENT: ("tangent", "moving_on"),
    Injector.FRAGMENTS: (),
    Injector.UNAVAILABLE_SERVICE: ("unavailable_service", "moving_on", "decline"),
    Injector.ADVERSARIAL: (*ADVERSARIAL, "moving_on", "decline"),
}
"""the `injections` a domain must have; by default the one of the injector's own name"""


def rates_from(rates: Mapping[str, float], language: Language) -> dict[Injector, float]:
    """Checked rates by injector, those of 0 left out; raises `MuarlError` (CONFIG) for an unknown name, a rate outside
    of 0 to 1, or a domain without the words."""
    checked: dict[Injector, float] = {}
    for name, rate in rates.items():
        if name not in set(Injector):
            known = [injector.value for injector in Injector]
            raise MuarlError(f"unknown injector {name!r}", next_step=nearest(name, known), code=ExitCode.CONFIG)
        if not 0 <= rate <= 1:
            raise MuarlError(
                f"the rate of injector {name} is {rate}, not a share from 0 to 1",
                next_step=f"for example {name}=0.1",
                code=ExitCode.CONFIG,
            )
        injector = Injector(name)
        missing = [key for key in _NEEDS.get(injector, (name,)) if not language.injections.get(key)]
        if missing:
            raise MuarlError(
                f"injector {name} has no words in this domain",
                next_step=f"add `injections: {{{missing[0]}: [...]}}` to its domain.yaml",
                code=ExitCode.CONFIG,
            )
        if rate > 0:
            checked[injector] = float(rate)
    return checked


def mistyped(number: str) -> list[str]:
    """All ways to mistype a number that an injected user has: one digit doubled, so that no record can have it."""
    return [number[:i] + digit + number[i:] for i, digit in enumerate(number)]


class InjectedUser(AgendaUser):
    """A scripted user with injectors."""

    def __init__(self, language: Language, goals: Sequence[Goal], seed: int, rates: Mapping[Injector, float]) -> None:
        super().__init__(language, goals, seed)
        self._dice = random.Random(derive_seed(seed, "inject"))
        """a stream of its own: what is injected does not move the words of the agenda"""
        self.armed = {
            name for name, rate in rates.items() if random.Random(derive_seed(seed, "arm", name.value)).random() < rate
        }
        self._fired: list[Injector] = []
        """in this turn"""
        self._turns = 0
        self._rest: list[str] = []
        """parts of an opening that were not said yet"""
        self._aside = False
        """the last turn left the matter, so that a refusal may mean that"""
        self._doubt = False
        """the last turn refused a right proposal"""
        self._typo = ""
        """slot whose value was mistyped and not corrected"""
        self._new_facts = False
        """what is told now was not asked back: the place for a typo"""
        self._agreed_first: set[int] = set()
        """changing goals whose first values were agreed to"""
        self._irritated = False

    def answer(self, heard: str) -> Answer:
        self._fired, self._turns = [], self._turns + 1
        opening, in_parts = self.at < 0, bool(self._rest)
        words, end, tags = super().answer(heard)
        if opening:
            words = self._in_parts(words)
        elif end is None and not self.consented and not in_parts:
            words = self._complain(words, heard)
        return words, end, (*tags, *(f"inject:{name.value}" for name in self._fired))

    def _fire(self, name: Injector) -> bool:
        """Whether this injector is armed; it then counts as fired, and is spent."""
        if name not in self.armed:
            return False
        self.armed.remove(name)
        self._fired.append(name)
        return True

    def _words(self, name: str, **values: str) -> str:
        return self._dice.choice(self.language.injections[name]).format(**values)

    def _react(self, goal: Goal, act: Act, asked: Sequence[str], heard: str) -> Answer:
        if self._rest:
            return self._go_on(goal, act, asked, heard)
        aside, self._aside = self._aside, False
        doubt, self._doubt = self._doubt, False
        if aside and act is Act.REFUSAL:
            return self._words("moving_on") + self._restate(goal), None, ()
        if doubt and act in (Act.ASK_MORE, Act.UNCLEAR):
            return self._words("refuse_reason"), None, ()
        if self._typo and act in (Act.REFUSAL, Act.ASK_MORE, Act.UNCLEAR):
            return self._correction() + self._tell(goal, [self._corrected()]), None, ()
        if act is Act.PROPOSAL or (act is Act.ASK and not self._has_better(goal, asked)):
            words = self._leave_the_matter()
            if words:
                return words, None, ()
        return super()._react(goal, act, asked, heard)

    def _go_on(self, goal: Goal, act: Act, asked: Sequence[str], heard: str) -> Answer:
        """The rest of the opening, whatever the agent says meanwhile; unless it is over already."""
        if act not in (Act.REPORT, Act.TRANSFER):
            return self._rest.pop(0), None, ()
        rest, self._rest = " ".join(self._rest), []
        words, end, tags = super()._react(goal, act, asked, heard)
        return f"{rest} {words}", end, tags

    def _in_parts(self, words: str) -> str:
        parts = words.split()
        if len(parts) < 3 or not self._fire(Injector.FRAGMENTS):
            return words
        size = -(-len(parts) // self._dice.choice((2, 3)))
        first, *self._rest = (" ".join(parts[i : i + size]) for i in range(0, len(parts), size))
        return first

    def _leave_the_matter(self) -> str:
        """Words about something else, where an injector has some left."""
        for name in ASIDES:
            if self._fire(name):
                self._aside = True
                return self._words(self._dice.choice(ADVERSARIAL) if name is Injector.ADVERSARIAL else name.value)
        return ""

    # --- what is told -------------------------------------------------------------------------------------------------

    def _open(self) -> str:
        self._new_facts = True
        words = super()._open()
        self._new_facts = False
        return words

    def _fresh(self, goal: Goal, slots: Sequence[str]) -> list[str]:
        """Those of `slots` that the user knows and has not told, in whatever way."""
        current = self._current(goal)
        return [
            s
            for s in slots
            if s not in goal.unknown and s != self._typo and (s, value_text(current[s])) not in self.told
        ]

    def _has_better(self, goal: Goal, asked: Sequence[str]) -> bool:
        """An injector that only a question for facts makes possible comes before one that is possible anywhere."""
        interrupts = Injector.INTERRUPT in self.armed and len(asked) > 1
        return interrupts or (Injector.AMBIGUITY in self.armed and bool(self._fresh(goal, asked)))

    def _inform(self, goal: Goal, asked: Sequence[str]) -> Answer:
        if len(asked) > 1 and self._fire(Injector.INTERRUPT):
            words, end, tags = self._inform(goal, asked[:1])
            return self._words("interrupt") + words, end, tags
        lead = ""
        if self._typo in asked:
            lead = self._correction()
            self._corrected()
        fresh = self._fresh(goal, asked)
        if fresh and self._fire(Injector.AMBIGUITY):
            vague = self._vague(value_text(self._current(goal)[fresh[0]]))
            others = [slot for slot in asked if slot != fresh[0]]
            words = super()._inform(goal, others)[0] if others else ""
            return f"{lead}{vague} {words}".strip(), None, ()
        self._new_facts = bool(fresh) and not lead
        words, end, tags = super()._inform(goal, asked)
        self._new_facts = False
        return lead + words, end, tags

    def _vague(self, value: str) -> str:
        if value.isdigit() and len(value) > 3:
            return self._words("ambiguity_number", start=value[:2])
        return self._words("ambiguity")

    def _tell(self, goal: Goal, slots: Sequence[str], act: str = "tell") -> str:
        numbers = self._numbers(goal, slots) if self._new_facts and not self._typo else []
        words = super()._tell(goal, slots, act)
        if not numbers or not self._fire(Injector.WRONG_THEN_CORRECT):
            return words
        value = value_text(goal.slots[numbers[0]])
        self._typo = numbers[0]
        self.told.discard((numbers[0], value))
        return re.sub(rf"(?<!\w){value}(?!\w)", self._dice.choice(mistyped(value)), words, count=1)

    def _numbers(self, goal: Goal, slots: Sequence[str]) -> list[str]:
        """Slots that name a record by a number which was never told."""
        intent = self.language.intents[goal.intent]
        values = {s: value_text(goal.slots[s]) for s in self._fresh(goal, slots) if s in intent.read_arguments}
        return [slot for slot, value in values.items() if value.isdigit() and len(value) > 3]

    def _correction(self) -> str:
        return self._words("correction")

    def _corrected(self) -> str:
        slot, self._typo = self._typo, ""
        return slot

    # --- proposals, reports, patience ---------------------------------------------------------------------------------

    def _change_is_due(self, goal: Goal, heard: str) -> bool:
        if self._changes_late(goal):
            return False
        return Injector.MIND_CHANGE_BEFORE_CONFIRM not in self.armed or not self._wrong(goal, heard)

    def _changes_late(self, goal: Goal) -> bool:
        """Whether the change waits for the write; where a hand-over follows the write, nobody would hear it."""
        return Injector.MIND_CHANGE_AFTER_WRITE in self.armed and not self.language.intents[goal.intent].then_transfer

    def _answer_proposal(self, goal: Goal, heard: str) -> Answer:
        words, end, tags = super()._answer_proposal(goal, heard)
        if tags:  # the change of mind that the task plans
            self._fire(Injector.MIND_CHANGE_BEFORE_CONFIRM)
        return words, end, tags

    def _agree(self, goal: Goal) -> Answer:
        if self._fire(Injector.REFUSE_ONCE):
            self._doubt = True
            return self._words("refuse_once"), None, ()
        if goal.change and self.at not in self.changed:
            self._agreed_first.add(self.at)
        self._typo = ""
        return super()._agree(goal)

    def _wrong(self, goal: Goal, heard: str) -> list[str]:
        wrong = super()._wrong(goal, heard)
        if self._typo in wrong:  # what is wrong is told next, so the typo is corrected by that
            self._typo = ""
        return wrong

    def _voice_change(self, goal: Goal) -> str:
        words = super()._voice_change(goal)
        if words and self.at in self._agreed_first:
            self._fire(Injector.MIND_CHANGE_AFTER_WRITE)
        return words

    def _next(self, lead: str) -> Answer:
        self._typo = ""
        return super()._next(lead)

    def _complain(self, words: str, heard: str) -> str:
        apology = _APOLOGY.search(heard) is not None
        if self._irritated and apology:
            self.patience -= 1
        if (apology or self._turns >= COMPLAINS_AFTER) and self._fire(Injector.IMPATIENCE):
            self._irritated = True
            return f"{words} {self._words('impatience')}"
        return words

    def _impatient(self, words: str) -> Answer:
        if self._irritated:
            self.patience -= 1
        return super()._impatient(words)
