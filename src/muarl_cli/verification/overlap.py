"""Whether demonstrations overlap with a benchmark: by task, by gold writes, and by wording.

Equal task hashes and equal non-empty gold-write hashes are the same task. Wording is compared by runs of 13 words with
numbers masked; runs that three or more tasks share (templates, policies) say nothing and are left out. Invariant: an
empty gold-write hash matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.records.lineage import TaskMark, overlap
from muarl_cli.scoring.wording import masked
from muarl_cli.worlds.scenario import Task

N = 13
SHARED = 3
"""a run that stands in so many tasks is a template"""
_FACTOR = 0x9E3779B97F4A7C15
"""odd, so that no word of a run is lost modulo 2^64"""


@dataclass(frozen=True)
class Runs:
    """The runs of words of many tasks, as 64-bit hashes. `places` says of each run which task it is of (its number);
    a task has each of its runs once."""

    tasks: int
    hashes: Any
    """uint64, of any order"""
    places: Any
    """int64, as long"""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Runs:
        """One task a text."""
        import numpy as np

        each = [np.unique(runs(text)) for text in texts]
        places = np.repeat(np.arange(len(each)), [len(own) for own in each])
        return cls(len(each), np.concatenate([np.empty(0, np.uint64), *each]), places)

    @cached_property
    def counted(self) -> tuple[Any, Any]:
        """(the different runs, sorted; in how many tasks each stands)"""
        import numpy as np

        found: tuple[Any, Any] = np.unique(self.hashes, return_counts=True)
        return found


def runs(text: str) -> Any:
    """The hashes of the runs of 13 words of a text, numbers masked, in its order; the same on every machine."""
    import numpy as np

    words = np.array([_word(word) for word in masked(text)], dtype=np.uint64)
    found = np.zeros(max(0, len(words) - N + 1), dtype=np.uint64)
    for place in range(N):
        found = found * np.uint64(_FACTOR) + words[place : place + len(found)]
    return found


@lru_cache(maxsize=1 << 16)
def _word(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Fingerprint:
    """What is needed of a task set to find it in demonstrations: its tasks, and the runs of words that fewer than
    `SHARED` of its tasks have, sorted, with in how many they stand."""

    tasks: tuple[TaskMark, ...]
    rare: Any
    counts: Any


def fingerprint(scenario: Any, tasks: Sequence[Task]) -> Fingerprint:
    """The fingerprint of these tasks of a scenario; their wording is what their users are told."""
    found, counts = Runs.of(scenario.user_prompt(task) for task in tasks).counted
    rare = counts < SHARED
    return Fingerprint(tuple(TaskMark.of(task) for task in tasks), found[rare], counts[rare])


def against(theirs: Fingerprint, marks: Iterable[TaskMark], own: Runs) -> dict[str, Any]:
    """Overlap of demonstrations with one task set: `marks` are the demonstrated tasks, `own` their runs of words."""
    import numpy as np

    found = overlap(marks, theirs.tasks)
    every, counts = own.counted
    _, here, there = np.intersect1d(every, theirs.rare, assume_unique=True, return_indices=True)
    known = every[here][counts[here] + theirs.counts[there] < SHARED]
    return {
        "tasks": len(theirs.tasks),
        "same_task": sum(row.by == "task_hash" for row in found),
        "same_gold_writes": sum(row.by == "gold_write_hash" for row in found),
        "demonstrations_with_13_gram": len(np.unique(own.places[np.isin(own.hashes, known)])),
    }


def wording(episodes: Sequence[Episode], briefs: Mapping[str, str]) -> Runs:
    """The runs of words of each demonstrated task: what its user was told to want, and what its user said."""
    texts: dict[str, list[str]] = {}
    for episode in episodes:
        lines = texts.setdefault(episode.task_hash, [briefs.get(episode.task_hash, "")])
        lines += [e.text for e in episode.events if e.actor is Actor.USER and e.kind is Kind.SAY]
    return Runs.of("\n".join(lines) for lines in texts.values())
