"""Whether our reward of a TAU2 trajectory equals that of upstream's own evaluator, on every task and four ways to err.

Each task's gold calls are played as they stand, cut short, in another order, and with one argument changed, in our
world and loop; the message list goes to upstream's `evaluate_simulation` in its own interpreter (MUARL_TAU2_ROOT,
MUARL_TAU2_PYTHON), which replays it and compares every tool answer with what we recorded. The tasks are the package's.

    python docs/measure/tau2_upstream.py [DOMAIN...]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
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
            record=next(r for r in scenario.package.records if str(r["id"]) == task.id),
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
