"""Whether our reward of a TAU2 trajectory equals that of upstream's own evaluator, on every task and four ways to err.

Each task's gold calls are played as they stand, cut short, in another order, and with one argument changed, in our
world and loop; the message list goes to upstream's `evaluate_simulation` in its own interpreter (MUARL_TAU2_ROOT,
MUARL_TAU2_PYTHON), which replays it and compares every tool answer with what we recorded. The tasks are the package's.
Where the package words an answer differently (one description in the bank, the class in a Python error), upstream would
refuse the replay: such an answer is counted, and upstream's own stands in for it.

    python docs/measure/tau2_upstream.py [DOMAIN...]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes.episodes import play
from fakes.trajectories import Playing, variants

from muarl_cli.benchmarks.checkouts import required_server
from muarl_cli.benchmarks.tau2 import Tau2Scenario, tau2_scenario
from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.conversation.protocols import ToolFault
from muarl_cli.users.minimal import MinimalUsers
from muarl_cli.worlds.scenario import Task

DOMAINS = ("retail", "airline", "telecom")


@dataclass(frozen=True)
class Compared:
    """One trajectory before both."""

    ours: float
    theirs: float | None
    reworded: int
    """answers that upstream words differently"""
    why: str = ""
    """what upstream complains of"""


def compare(scenario: Tau2Scenario, task: Task, played: Task, server: Any) -> Compared:
    """Play a trajectory in our loop and give it to upstream's evaluator."""
    found = asyncio.run(play(scenario, task, Playing(played), MinimalUsers()))
    ours = found.outcome.reward
    messages = messages_of(found.transcript.events, scenario.tools, scenario.user_tools)
    about = {
        "domain": scenario.name,
        "task": task.id,
        "record": next(record for record in scenario.package.records if str(record["id"]) == task.id),
    }
    ended = "user_stop" if found.transcript.end.reason.graded else "too_many_errors"
    try:
        reworded = take_answers(messages, server.ask("answers", messages=messages, **about))
        theirs = server.ask("grade", messages=messages, termination=ended, **about)
    except ToolFault as fault:
        return Compared(ours, None, 0, str(fault)[:400])
    return Compared(ours, float(theirs["reward"]), reworded)


def take_answers(messages: list[dict[str, Any]], answers: Sequence[str]) -> int:
    """Put upstream's answers in where ours read differently; how many those are."""
    places = [message for message in messages if message["role"] == "tool"]
    changed = [
        (place, text) for place, text in zip(places, answers, strict=True) if meaning(place["content"]) != meaning(text)
    ]
    for place, text in changed:
        place["content"] = text
    return len(changed)


def meaning(text: str) -> Any:
    """An answer as upstream compares it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(domains: Sequence[str]) -> None:
    server = required_server("tau2")
    rows: dict[str, Any] = {}
    disagreements: list[dict[str, Any]] = []
    for domain in domains or DOMAINS:
        scenario = tau2_scenario(domain)
        counts: Counter[str] = Counter()
        for task in scenario.tasks("base"):
            for kind, played in variants(task).items():
                one = compare(scenario, task, played, server)
                counts[kind] += 1
                counts[f"{kind}_rewarded"] += one.ours == 1.0
                counts["compared"] += 1
                counts["reworded"] += one.reworded > 0
                if one.ours != one.theirs:
                    disagreements.append({"task": f"{domain}:{task.id}", "kind": kind} | asdict(one))
        rows[domain] = dict(counts)
    print(
        json.dumps(
            {
                "upstream": server.hello["revision"] or "no commit",
                "compared": sum(row["compared"] for row in rows.values()),
                "reworded": sum(row["reworded"] for row in rows.values()),
                "disagreements": len(disagreements),
                "domains": rows,
                "first": disagreements[:5],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
