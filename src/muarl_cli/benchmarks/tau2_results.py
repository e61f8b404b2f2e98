"""`results.json` as TAU2's own commands read it: view, re-grade, submit.

One file a domain, in the slim form: messages with what a replay needs, rewards as they were given here. Invariant: a
replay of the messages in the benchmark's environment ends in the state that our conversation ended in. A model that was
trained on the benchmark's tasks is submitted as `submission_type: custom`, which the file's info repeats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from muarl_cli.benchmarks.transcripts import messages_of
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode

TERMINATION = {
    EndReason.USER_STOP: "user_stop",
    EndReason.TRANSFER: "user_stop",
    EndReason.OUT_OF_SCOPE: "user_stop",
    EndReason.AGENT_STOP: "agent_stop",
    EndReason.LIMIT_AGENT: "max_steps",
}
"""upstream's names of valid ends; episodes that ended in a fault are left out, as upstream drops them"""
MAX_STEPS, MAX_ERRORS = 200, 10
"""upstream's own limits; ours stand in the run's settings"""


def results_file(scenario: Any, records: Sequence[Mapping[str, Any]], episodes: Sequence[Episode], agent: str) -> bytes:
    """The file of one domain. `records` are the benchmark's own task records of the tasks that were played."""
    played = [e for e in episodes if e.end.reason in TERMINATION]
    known = {str(record["id"]): record for record in records}
    user = played[0].user if played else {}
    revision = dict(scenario.revision)
    return json.dumps(
        {
            "timestamp": _when(max((_started(e) for e in played), default=0.0)),
            "info": {
                "git_commit": revision.get("upstream", ""),
                "num_trials": 1 + max((e.rollout for e in played), default=0),
                "max_steps": MAX_STEPS,
                "max_errors": MAX_ERRORS,
                "user_info": {
                    "implementation": f"muarl:{user.get('backend', '')}",
                    "llm": user.get("model") or None,
                    "global_simulation_guidelines": scenario.user_guidelines,
                },
                "agent_info": {"implementation": "muarl", "llm": agent},
                "environment_info": {"domain_name": scenario.name, "policy": scenario.policy},
                "seed": None,
                "retrieval_config": revision.get("retrieval"),
            },
            "tasks": [known[task_id] for task_id in dict.fromkeys(e.task_id for e in played)],
            "simulations": [_simulation(scenario, episode) for episode in played],
        },
        ensure_ascii=True,
        indent=1,
    ).encode()


def official_figures(scenario: Any, episodes: Sequence[Episode]) -> dict[str, Any]:
    """What TAU-bench reports beside the score: pass^1, over a domain the share of single criteria that were met (the
    paper's task completion rate), and how many episodes have assertions in words that nobody judged."""
    counted = [episode for episode in episodes if episode.end.reason in TERMINATION]
    met = [float(e.detail["completion"]) for e in counted if "completion" in e.detail]
    found: dict[str, Any] = {"revision": dict(scenario.revision), "episodes": len(counted)}
    if counted:
        found["pass_1"] = sum(float(e.reward or 0.0) for e in counted) / len(counted)
    if met:
        found["task_completion_rate"] = sum(met) / len(met)
    return found | {"unjudged": sum(bool(e.detail.get("unjudged")) for e in counted)}


def _simulation(scenario: Any, episode: Episode) -> dict[str, Any]:
    seconds = float(episode.volatile.get("seconds", 0.0))
    bases = episode.detail.get("bases", {})
    return {
        "id": episode.episode_id,
        "task_id": episode.task_id,
        "start_time": _when(_started(episode)),
        "end_time": _when(_started(episode) + seconds),
        "duration": seconds,
        "termination_reason": TERMINATION[episode.end.reason],
        "reward_info": {
            "reward": episode.reward,
            "reward_basis": [name.upper() for name in bases],
            "reward_breakdown": {name.upper(): float(met) for name, met in bases.items() if met is not None},
        },
        "messages": messages_of(episode.events, scenario.tools, scenario.user_tools),
        "trial": episode.rollout,
        "seed": episode.seed,
    }


def _started(episode: Episode) -> float:
    return float(episode.volatile.get("started", 0.0))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
