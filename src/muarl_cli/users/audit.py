"""Is the user simulator to be trusted? The metrics S1 to S17 from the log alone, with gates, by back-end and persona.

Each metric adds up (part, whole) over episodes, and keeps the ids of the first episodes that count against it.
Invariant: a metric that cannot be judged (no facts, nothing that could have gone wrong, a judge needed) is null with
the reason, and neither passes nor fails a gate.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.users import checks, style
from muarl_cli.users.blame import AtFault, Blame
from muarl_cli.users.checks import Score
from muarl_cli.users.dialogue import Dialogue
from muarl_cli.users.facts import FactBook

EXAMPLES = 5
"""episodes named a metric"""
COPYING = 0.05
"""share of the brief that may be copied; an episode with more is named"""
SCRIPTED, PERSON = "scripted", "human"


@dataclass(frozen=True)
class Metric:
    """One metric: its gate for scripted users and for users worded by a model, as a limit on one side."""

    id: str
    name: str
    scripted: float | None
    model: float | None
    at_most: bool = True
    """the gate is an upper limit, else a lower one"""
    share: bool = True
    """written in percent"""

    def gate(self, backend: str) -> float | None:
        """The limit for a back-end; people are measured and not judged."""
        return None if backend == PERSON else self.scripted if backend == SCRIPTED else self.model


METRICS = (
    Metric("S1", "grounding violations", 0.0, 0.02),
    Metric("S2", "unknown facts given", 0.0, 0.01),
    Metric("S3", "unprompted disclosure", 0.0, 0.15),
    Metric("S4", "goal coverage", 1.0, 0.97, at_most=False),
    Metric("S5", "premature stop", 0.0, 0.01),
    Metric("S6", "overrun", 0.01, 0.03),
    Metric("S7", "role confusion", 0.0, 0.01),
    Metric("S8", "contradiction", 0.0, 0.01),
    Metric("S9", "copying", None, COPYING),
    Metric("S10", "lexical diversity (MATTR-50)", 0.6, 0.7, at_most=False, share=False),
    Metric("S11", "likeness of openings (Jaccard)", 0.6, 0.6, share=False),
    Metric("S11b", "identical openings", 0.05, 0.05),
    Metric("S12", "words a turn (median)", None, None, share=False),
    Metric("S13", "planned change voiced", 1.0, 0.97, at_most=False),
    Metric("S14", "truthful consent", 1.0, 0.98, at_most=False),
    Metric("S15", "replay determinism", 1.0, None, at_most=False),
    Metric("S16", "back-end spread", None, None),
    Metric("S17", "fault share", 0.01, 0.05),
)
_TWO_LOGS = "needs two logs with other users: muarl users compare A B"
_NO_JUDGE = "needs a judge who finds the first decisive error: --judge-model, --judge-base-url"
UNREAD = 0.1
"""share of a judge's answers that may be unreadable; with more there is no value"""
_EPISODE_CHECKS = {
    "S1": checks.ungrounded,
    "S2": checks.unknown_given,
    "S3": checks.unprompted,
    "S4": checks.coverage,
    "S5": checks.premature,
    "S6": checks.overrun,
    "S7": checks.role_confusion,
    "S8": checks.contradiction,
    "S13": checks.change_voiced,
    "S14": checks.truthful,
}
WITHOUT_FACTS = ("S6", "S7")
"""checks that need nothing but the log"""
_COUNTED_AGAINST = {"S4", "S13", "S14", "S15"}
"""metrics in which the part is what went right"""


@dataclass
class _Sum:
    part: float = 0.0
    whole: float = 0.0
    allowed: float = 0.0
    """of `part`, what the brief plans"""
    examples: list[str] = field(default_factory=list)

    def add(self, score: Score, name: str, right: bool) -> None:
        self.part += score.part
        self.whole += score.whole
        self.allowed += score.allowed
        wrong = score.part < score.whole if right else score.part > score.allowed
        if wrong and len(self.examples) < EXAMPLES:
            self.examples.append(f"{name}: {score.what}" if score.what else name)

    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None


@dataclass(frozen=True)
class Result:
    """One metric of one group."""

    metric: Metric
    value: float | None
    n: float
    """what the value is a share or a mean of"""
    gate: float | None
    reason: str = ""
    """why there is no value, or no gate"""
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool | None:
        """None where there is nothing to judge."""
        if self.value is None or self.gate is None:
            return None
        slack = 1e-9
        return self.value <= self.gate + slack if self.metric.at_most else self.value >= self.gate - slack

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.metric.id,
            "name": self.metric.name,
            "value": self.value,
            "n": self.n,
            "gate": self.gate,
            "at_most": self.metric.at_most,
            "passed": self.passed,
            "reason": self.reason,
            "examples": list(self.examples),
        }


@dataclass(frozen=True)
class GroupAudit:
    """The users of one back-end with one persona."""

    backend: str
    persona: str
    episodes: int
    faults: int
    """episodes that ended in a user fault"""
    results: tuple[Result, ...]

    def __getitem__(self, metric_id: str) -> Result:
        return next(result for result in self.results if result.metric.id == metric_id)

    @property
    def failed(self) -> list[str]:
        return [result.metric.id for result in self.results if result.passed is False]

    def to_json(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "persona": self.persona,
            "episodes": self.episodes,
            "user_faults": self.faults,
            "failed": self.failed,
            "metrics": [result.to_json() for result in self.results],
        }


class _Group:
    def __init__(self, backend: str, persona: str, book: FactBook, judged: Mapping[str, Blame] | None = None) -> None:
        self.backend, self.persona, self.book, self.judged = backend, persona, book, judged
        self.unread = 0
        """failures that the judge gave no readable answer about"""
        self.episodes = self.faults = 0
        self.sums: dict[str, _Sum] = defaultdict(_Sum)
        self.no_facts = ""
        self.turn_words: list[int] = []
        self.openings: dict[str, dict[int, str]] = defaultdict(dict)
        """task hash to seed to the first turn: equal seeds give equal openings, and say nothing"""

    def add(self, episode: Episode) -> None:
        self.episodes += 1
        self.faults += episode.end.reason is EndReason.USER_FAULT
        self._take_blame(episode)
        texts = [e.text for e in episode.events if e.actor is Actor.USER and e.kind is Kind.SAY]
        self._style(episode, texts)
        facts = self.book.of(episode)
        if isinstance(facts, str):
            self.no_facts = facts
            self._check(episode, None)
            return
        copied = style.copied(facts.instruction, texts)
        if copied is not None:
            self._put("S9", Score(copied, 1.0, f"{copied:.0%} copied", COPYING), episode)
        if facts.language is None:
            self.no_facts = f"{episode.scenario} has no table of slots"
            self._check(episode, None)
            return
        self._check(episode, Dialogue(episode, facts))
        if self.backend == SCRIPTED and not self.persona:
            self._put("S15", checks.replays(episode, facts, self.book.scenario(episode)), episode)

    def _take_blame(self, episode: Episode) -> None:
        blame = (self.judged or {}).get(episode.episode_id)
        if blame is None:
            return
        if blame.at_fault is AtFault.UNREAD:
            self.unread += 1
            return
        what = f"event {blame.event}: {blame.error}" if blame.at_fault is AtFault.USER else ""
        self._put("S17", Score(float(blame.at_fault is AtFault.USER), 1.0, what), episode)

    def _check(self, episode: Episode, dialogue: Dialogue | None) -> None:
        for metric, check in _EPISODE_CHECKS.items():
            if dialogue is not None:
                self._put(metric, check(dialogue), episode)
            elif metric in WITHOUT_FACTS:
                self._put(metric, checks.FROM_LOG[metric](episode), episode)

    def _put(self, metric: str, score: Score | None, episode: Episode) -> None:
        if score is not None:
            self.sums[metric].add(score, episode.episode_id, metric in _COUNTED_AGAINST)

    def _style(self, episode: Episode, texts: list[str]) -> None:
        self.turn_words += [len(style.words_of(text)) for text in texts]
        variety = style.mattr([word for text in texts for word in style.words_of(text)])
        if variety is not None:
            self.sums["S10"].part += variety
            self.sums["S10"].whole += 1
        if texts:
            self.openings[episode.task_hash].setdefault(episode.seed, texts[0])

    def results(self) -> GroupAudit:
        alike, equal = style.likeness({task: list(rows.values()) for task, rows in self.openings.items()})
        trials = sum(len(rows) for rows in self.openings.values() if len(rows) > 1)
        median = statistics.median(self.turn_words) if self.turn_words else None
        direct = {"S11": (alike, trials), "S11b": (equal, trials), "S12": (median, len(self.turn_words))}
        rows = []
        for metric in METRICS:
            gate = metric.gate(self.backend)
            if metric.id == "S16":
                rows.append(Result(metric, None, 0, gate, _TWO_LOGS))
            elif metric.id == "S17":
                rows.append(self._fault_share(metric, gate))
            elif metric.id in direct:
                value, n = direct[metric.id]
                reason = (
                    ""
                    if value is not None
                    else "needs several rollouts of a task"
                    if "S11" in metric.id
                    else "no turns"
                )
                rows.append(Result(metric, value, n, gate, reason))
            else:
                rows.append(self._result(metric, self.sums[metric.id], gate))
        return GroupAudit(self.backend, self.persona, self.episodes, self.faults, tuple(rows))

    def _fault_share(self, metric: Metric, gate: float | None) -> Result:
        """The share of the judged failures that the user decided."""
        if self.judged is None:
            return Result(metric, None, 0, gate, _NO_JUDGE)
        total, unread = self.sums[metric.id], self.unread
        asked = total.whole + unread
        if not asked:
            return Result(metric, None, 0, gate, "no episode failed")
        if unread > UNREAD * asked:
            return Result(metric, None, 0, gate, f"{unread:g} of {asked:g} answers of the judge cannot be read")
        return Result(metric, total.value(), total.whole, gate, "", tuple(total.examples))

    def _result(self, metric: Metric, total: _Sum, gate: float | None) -> Result:
        value = total.value()
        if metric.id == "S3" and self.backend == SCRIPTED and total.whole:
            gate = total.allowed / total.whole  # what the briefs plan to be told with the opening of a request
        reason = ""
        if value is None:
            reason = self.no_facts or "nothing that could have gone wrong"
            if metric.id == "S15" and self.backend != SCRIPTED:
                reason = "only a scripted user can be played again from the log; others by their cassette"
            elif metric.id == "S15" and self.persona:
                reason = "a persona words the turns"
        return Result(metric, value, total.whole, gate, reason, tuple(total.examples))


@dataclass(frozen=True)
class Audit:
    """All groups of a log."""

    groups: tuple[GroupAudit, ...]

    @property
    def failed(self) -> list[str]:
        """Gates that fail, as backend/persona/metric."""
        return [
            "/".join(filter(None, (group.backend, group.persona, metric)))
            for group in self.groups
            for metric in group.failed
        ]

    def to_json(self) -> dict[str, Any]:
        return {"passed": not self.failed, "failed": self.failed, "groups": [group.to_json() for group in self.groups]}


def audit(episodes: Iterable[Episode], judged: Mapping[str, Blame] | None = None) -> Audit:
    """Measure the users of a log. Facts are looked up in the scenarios the log names; the episodes are read once.
    `judged`: what a judge said about the failed ones, for S17."""
    book = FactBook()
    groups: dict[tuple[str, str], _Group] = {}
    for episode in episodes:
        key = (str(episode.user.get("backend", "")), persona_text(episode.user.get("persona")))
        if key not in groups:
            groups[key] = _Group(*key, book, judged)
        groups[key].add(episode)
    return Audit(tuple(groups[key].results() for key in sorted(groups)))


def persona_text(persona: Any) -> str:
    """A persona as one short text."""
    if not persona:
        return ""
    if isinstance(persona, Mapping):
        return json.dumps(dict(persona), sort_keys=True, separators=(",", ":"))
    return str(persona)
