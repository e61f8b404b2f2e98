"""Whether our reward of a TAU2 trajectory equals that of upstream's own evaluator, on every task and four ways to err.

Each task's gold calls are played as they stand, cut short, in another order, and with one argument changed, in our
world and loop; the message list goes to upstream's `evaluate_simulation` in its own interpreter (MUARL_TAU2_ROOT,
MUARL_TAU2_PYTHON), which replays it and compares every tool answer with what we recorded.

    python docs/measure/tau2_upstream.py [DOMAIN...]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.episodes import play

from muarl_cli.agents.gold_replay import GoldReplay
from muarl_cli.benchmarks.checkouts import required_server
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.conversation.protocols import ToolFault
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import GoldCall, Task

DOMAINS = ("retail", "airline", "telecom")


class Playing(GoldReplay):
    """Plays the gold calls of another version of the task."""

    def __init__(self, played: Task) -> None:
        super().__init__()
        self.played = played

    def open(self, stage: Any, task: Any) -> Any:
        return super().open(stage, self.played)


def variants(task: Task, seed: int = 0) -> dict[str, Task]:
    """The task with what its gold replay plays replaced; the reward is that of the real one."""
    rng = random.Random(f"{seed}:{task.id}")
    gold = list(task.gold)
    shuffled = rng.sample(gold, len(gold))
    cut = gold[: rng.randrange(len(gold))] if gold else []
    return {
        "gold": task,
        "truncated": replace(task, gold=tuple(cut), communicate=()),
        "shuffled": replace(task, gold=tuple(shuffled)),
        "perturbed": replace(task, gold=tuple(perturbed(gold, rng))),
    }


def perturbed(gold: Sequence[GoldCall], rng: random.Random) -> list[GoldCall]:
    """One argument of one call changed, to another value that the same task uses where there is one."""
    calls = list(gold)
    places = [i for i, call in enumerate(calls) if call.arguments]
    if not places:
        return calls[1:]
    place = rng.choice(places)
    name = rng.choice(sorted(calls[place].arguments))
    value = calls[place].arguments[name]
    others = [c.arguments[name] for c in calls if name in c.arguments and c.arguments[name] != value]
    arguments = {**calls[place].arguments, name: rng.choice(others) if others else other(value)}
    calls[place] = replace(calls[place], arguments=arguments)
    return calls


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return value[:-1]
    return f"{value}x" if isinstance(value, str) else value


def compare(scenario: Tau2Scenario, task: Task, played: Task, server: Any) -> tuple[float, float | None, str]:
    """(our reward, upstream's, what upstream complains of)."""
    found = asyncio.run(play(scenario, task, Playing(played), MinimalUsers()))
    ours = found.outcome.reward
    messages = messages_of(found.transcript.events, scenario.tools, scenario.user_tools)
    graded = found.transcript.end.reason.graded
    try:
        theirs = server.ask(
            "grade",
            domain=scenario.name,
            task=task.id,
            messages=messages,
            termination="user_stop" if graded else "too_many_errors",
        )
    except ToolFault as fault:
        return ours, None, str(fault)[:400]
    return ours, float(theirs["reward"]), ""


def main(domains: Sequence[str]) -> None:
    server = required_server("tau2")
    rows: dict[str, Any] = {}
    disagreements: list[dict[str, Any]] = []
    for domain in domains or DOMAINS:
        scenario = tau2_scenario(domain)
        counts: Counter[str] = Counter()
        for task in scenario.tasks("base"):
            for kind, played in variants(task).items():
                ours, theirs, why = compare(scenario, task, played, server)
                counts[kind] += 1
                counts[f"{kind}_rewarded"] += ours == 1.0
                counts["compared"] += 1
                if ours != theirs:
                    disagreements.append(
                        {"task": f"{domain}:{task.id}", "kind": kind, "ours": ours, "theirs": theirs, "why": why}
                    )
        rows[domain] = dict(counts)
    print(
        json.dumps(
            {
                "upstream": server.hello["revision"] or "no commit",
                "compared": sum(row["compared"] for row in rows.values()),
                "disagreements": len(disagreements),
                "domains": rows,
                "first": disagreements[:5],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
