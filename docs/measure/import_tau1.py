"""The public GPT-4o airline trajectories of tau-bench, imported and judged. Prints JSON.

Needs a checkout of sierra-research/tau-bench, named by MUARL_TAU1_ROOT; nothing of it is stored here. The figures are
what the imported log says: pass^k with its interval, floors, turns, and the layers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.trajectories import import_trajectories
from muarl_cli.conversation.events import Kind, ToolClass
from muarl_cli.reports.run_view import load_run
from muarl_cli.scoring.rescore import rescore
from muarl_cli.worlds.task_file import read_tasks

TRAJECTORIES = "historical_trajectories/gpt-4o-airline.json"


def measure(checkout: Path, folder: Path) -> dict[str, Any]:
    imported = import_trajectories(checkout / TRAJECTORIES, folder)
    layers = rescore(folder)["labels"]["eval"]
    run = load_run(folder)
    score, tasks = run.main, read_tasks(folder)
    calls = [e for episode in run.own for e in episode.events if e.kind is Kind.CALL and e.call]
    attempts = {e.episode_id: sum(_writes(event) for event in e.events) for e in run.own}
    assert score.score is not None and score.write_tasks is not None and score.no_write_tasks is not None
    return {
        "episodes": imported["episodes"],
        "tasks": imported["tasks"],
        "pass_hat": {f"k{k}": interval.to_json() for k, interval in score.pass_hat.items()},
        "write_tasks": score.write_tasks.mean,
        "no_write_tasks": score.no_write_tasks.mean,
        "idle_tasks": sum(not (task.gold_writes or task.communicate) for task in tasks.values()),
        "all_correct": score.all_correct,
        "all_wrong": score.all_wrong,
        "turns": score.usage["turns"],
        "tool_calls": len(calls),
        "writes_tried": sum(attempts.values()),
        "writing_conversations": sum(n > 0 for n in attempts.values()),
        "handed_over": layers["behaviour"]["handed_over"],
        "should_hand_over": layers["behaviour"]["should_hand_over"],
        "confirmation_discipline": layers["behaviour"]["confirmation_discipline"],
        "clean_success": layers["clean_success"],
        "corrupt_share_of_successes": layers["corrupt_share_of_successes"],
        "safety_events": layers["safety"]["events"],
    }


def _writes(event: Any) -> bool:
    return event.kind is Kind.CALL and event.call is not None and event.call.klass is ToolClass.WRITE


if __name__ == "__main__":
    if not os.environ.get("MUARL_TAU1_ROOT"):
        sys.exit("name a checkout of sierra-research/tau-bench with MUARL_TAU1_ROOT")
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(os.environ["MUARL_TAU1_ROOT"]), Path(scratch))))
