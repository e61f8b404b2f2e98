"""Whether demonstrations overlap with a benchmark: by task, by gold writes, and by wording.

Equal task hashes and equal non-empty gold-write hashes are the same task. Wording is compared by runs of 13 words with
numbers masked; runs that three or more tasks share (templates, policies) say nothing and are left out. Invariant: an
empty gold-write hash matches nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Actor, Kind
from muarl_cli.records.lineage import TaskMark, overlap
from muarl_cli.scoring.wording import masked
from muarl_cli.worlds.scenario import Task

N = 13
SHARED = 3
"""a run that stands in so many tasks is a template"""
Grams = frozenset[tuple[str, ...]]


def grams(text: str) -> Grams:
    """The runs of 13 words of a text, numbers masked."""
    words = masked(text)
    return frozenset(words[i : i + N] for i in range(len(words) - N + 1))


def against(
    scenario: Any, tasks: Sequence[Task], marks: Iterable[TaskMark], own: Mapping[str, Grams]
) -> dict[str, Any]:
    """Overlap of demonstrations with one task set: `marks` are the demonstrated tasks, `own` their runs of words."""
    found = overlap(marks, tasks)
    theirs = [grams(scenario.user_prompt(task)) for task in tasks]
    counts = Counter(gram for runs in (*own.values(), *theirs) for gram in runs)
    known = {gram for runs in theirs for gram in runs if counts[gram] < SHARED}
    return {
        "tasks": len(tasks),
        "same_task": sum(row.by == "task_hash" for row in found),
        "same_gold_writes": sum(row.by == "gold_write_hash" for row in found),
        "demonstrations_with_13_gram": sum(bool(runs & known) for runs in own.values()),
    }


def wording(episodes: Sequence[Episode], briefs: Mapping[str, str]) -> dict[str, Grams]:
    """The runs of words of each demonstrated task: what its user was told to want, and what its user said."""
    texts: dict[str, list[str]] = {}
    for episode in episodes:
        lines = texts.setdefault(episode.task_hash, [briefs.get(episode.task_hash, "")])
        lines += [e.text for e in episode.events if e.actor is Actor.USER and e.kind is Kind.SAY]
    return {key: grams("\n".join(lines)) for key, lines in texts.items()}
