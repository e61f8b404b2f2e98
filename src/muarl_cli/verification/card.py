"""The data card: what is in a set of demonstrations, what was refused and why, and what it overlaps with.

Invariant: every figure is counted from the log, the verdicts and the tasks; nothing is written by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.events import Kind
from muarl_cli.records.lineage import TaskMark
from muarl_cli.scoring.statistics import percentile
from muarl_cli.verification.coverage import coverage, makeup
from muarl_cli.verification.duplicates import Seen, shingles
from muarl_cli.verification.overlap import Fingerprint, against, wording
from muarl_cli.verification.subject import Filter
from muarl_cli.worlds.scenario import Task

CHARS_A_TOKEN = 4
"""of English, about; a teacher that counts tokens is believed instead"""
NEAR = 0.8
"""the similarity from which the card counts a pair as near duplicates"""


def data_card(
    episodes: Sequence[Episode],
    verdicts: Mapping[str, Mapping[str, Any]],
    scenarios: Mapping[str, tuple[Any, Sequence[Task]]],
    benchmarks: Mapping[str, Fingerprint],
) -> dict[str, Any]:
    """The card of a run. `scenarios` maps `source:name` to the scenario and all tasks of the demonstrated split;
    `benchmarks` are the task sets to look for in it, by name."""
    accepted = [e for e in episodes if verdicts.get(e.episode_id, {}).get("accepted")]
    tasks = {task.task_hash: (scenario, task) for scenario, own in scenarios.values() for task in own}
    held = Counter(e.scenario for e in episodes)
    return {
        "held": len(episodes),
        "accepted": len(accepted),
        "scenarios": {
            name: {"held": held[name], **_scenario(scenario, own, [e for e in accepted if e.scenario == name], tasks)}
            for name, (scenario, own) in scenarios.items()
        },
        "filters": filters(verdicts),
        "refused_for": refused_for(verdicts),
        "duplicates": _duplicates(accepted),
        "parties": _parties(accepted),
        "overlap": _overlaps(accepted, tasks, benchmarks),
    }


def filters(verdicts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each filter: how many it was asked about, how many it let pass, and the share."""
    found = {}
    for filter_ in Filter:
        answers = Counter(row.get("checks", {}).get(filter_.value, "na") for row in verdicts.values())
        asked = answers["pass"] + answers["fail"]
        if asked:
            found[filter_.value] = {"asked": asked, "passed": answers["pass"], "share": answers["pass"] / asked}
    return found


def refused_for(verdicts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many episodes each kind of reason speaks against, the most frequent first."""
    counts = Counter(code for row in verdicts.values() for code in row.get("codes", ()))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _scenario(
    scenario: Any, tasks: Sequence[Task], accepted: Sequence[Episode], known: Mapping[str, tuple[Any, Task]]
) -> dict[str, Any]:
    made = [makeup(known[e.task_hash][1], e.events) for e in accepted if e.task_hash in known]
    families = Counter(known[e.task_hash][1].family for e in accepted if e.task_hash in known)
    return {
        "accepted": len(accepted),
        "tasks": len({e.task_hash for e in accepted}),
        "families": len(families),
        "largest_family": max(families.values(), default=0) / max(1, len(accepted)),
        **coverage(scenario, tasks, [e.events for e in accepted]),
        "turns": _spread([e.usage["turns"] for e in accepted]),
        "tool_calls": _spread([e.usage["tool_calls"] for e in accepted]),
        "tokens_about": _spread([_tokens(e) for e in accepted]),
        "multi_intent": _share([m.intents > 1 for m in made]),
        "refusals": _share([m.refused for m in made]),
        "mind_changes": _share([m.changes for m in made]),
    }


def _tokens(episode: Episode) -> int:
    """Tokens of what was said and answered: about, where nobody counted them."""
    return sum(len(e.text) + len(str(e.call.arguments or "")) for e in episode.events if e.call) // CHARS_A_TOKEN + (
        episode.usage.get("agent_tokens", 0)
        or sum(len(e.text) for e in episode.events if e.kind is Kind.SAY) // CHARS_A_TOKEN
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "mean": sum(values) / len(values),
        "median": percentile(values, 0.5),
        "p95": percentile(values, 0.95),
        "max": max(values),
    }


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _duplicates(accepted: Sequence[Episode]) -> dict[str, Any]:
    words = {e.episode_id: shingles(e.events) for e in accepted}
    same = Counter(words.values())
    seen, near, most = Seen(NEAR), 0, 0.0
    for key, own in words.items():
        like = seen.like(own)
        near += like is not None
        most = max(most, like[1] if like else 0.0)
        seen.keep(key, own)
    return {"same_words": sum(n - 1 for n in same.values()), f"above_{NEAR:.0%}": near, "most_alike_above": most}


def _parties(accepted: Sequence[Episode]) -> dict[str, dict[str, int]]:
    """Who spoke: teachers, users, personas."""
    return {
        "teachers": dict(sorted(Counter(str(e.agent["model"]) for e in accepted).items())),
        "users": dict(sorted(Counter(str(e.user["backend"]) for e in accepted).items())),
        "personas": dict(sorted(Counter(str(e.user["persona"] or "none") for e in accepted).items())),
    }


def _overlaps(
    accepted: Sequence[Episode],
    known: Mapping[str, tuple[Any, Task]],
    benchmarks: Mapping[str, Fingerprint],
) -> dict[str, Any]:
    held = {e.task_hash for e in accepted}
    marks = [TaskMark.of(task) for key, (_, task) in known.items() if key in held]
    briefs = {key: scenario.user_prompt(task) for key, (scenario, task) in known.items() if key in held}
    own = wording(accepted, briefs)
    return {name: against(theirs, marks, own) for name, theirs in benchmarks.items()}
