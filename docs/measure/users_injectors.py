"""US-05, US-07, US-09: what scripted agents make of injected users. Prints one JSON document.

    python docs/measure/users_injectors.py

`forced_on` has, for each injector alone and at rate 1, the episodes in which it could fire (the transcript holds a
question, an agreed proposal, a planned change, ...), those in which it fired, and the share that is solved.
`confirmed` is the share of writing episodes in which every write had a yes: the rule that `hasty` breaks.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.opportunities import could

from muarl_cli.agents.floors import DoNothing
from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.limits import Limits, Tally
from muarl_cli.conversation.loop import Transcript
from muarl_cli.pipeline.play import job
from muarl_cli.pipeline.play import play as play_job
from muarl_cli.scoring.metrics import count
from muarl_cli.users.agenda import AgendaUsers
from muarl_cli.users.injectors import Injector
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.goals import goals_of

LIMITS = Limits(max_turns=30, max_agent_tokens=0, max_identical_calls=3, max_failed_calls=10, max_seconds=0)
EVERYTHING = {injector.value: 1.0 for injector in Injector}


def episodes(agent: str, rates: Mapping[str, float], split: str = "test") -> list[Episode]:
    found = []
    for name in BUILTIN:
        domain = builtin(name)
        agents: Any = DoNothing() if agent == "do-nothing" else ScriptedAgents(domain.language, Manner(agent))
        users = AgendaUsers(domain.language, rates)
        for task in domain.tasks(split):
            found.append(asyncio.run(play_job(job("i", "eval", 0, domain, task, 0, 9), agents, users, LIMITS)))
    return found


def solved(played: list[Episode]) -> float:
    return sum(episode.reward == 1 for episode in played) / len(played)


def confirmed(played: list[Episode]) -> float:
    counts = [count(episode.events) for episode in played]
    writing = sum(c.writing_episodes for c in counts)
    return 1 - sum(c.unconfirmed_episodes for c in counts) / writing


def possible(injector: Injector, episode: Episode) -> bool:
    """Whether the episode holds the injector's opportunity."""
    domain = builtin(episode.scenario.partition(":")[2])
    task = next(task for task in domain.tasks(episode.split) if task.task_hash == episode.task_hash)
    talk = Transcript(Tally(LIMITS), list(episode.events), episode.end)
    return could(injector, domain, goals_of(task.brief), talk)


def main() -> None:
    played = {agent: episodes(agent, EVERYTHING) for agent in ("oracle", "careful", "hasty", "do-nothing")}
    no_op = sum(not task.writes for name in BUILTIN for task in builtin(name).tasks("test"))
    wins = [episode for episode in played["do-nothing"] if episode.reward == 1]
    writes = {task.task_hash for name in BUILTIN for task in builtin(name).tasks("test") if task.writes}
    fired = {}
    for injector in Injector:
        alone = episodes("careful", {injector.value: 1.0}, "dev")
        tags = [f"inject:{injector.value}" in [tag for e in episode.events for tag in e.tags] for episode in alone]
        fired[injector.value] = {
            "could": sum(possible(injector, episode) for episode in alone),
            "fired": sum(tags),
            "solved": solved(alone),
        }
    print(
        json.dumps(
            {
                "tasks": len(played["oracle"]),
                "solved": {agent: solved(rows) for agent, rows in played.items()},
                "solved_by_do_nothing_that_need_a_write": sum(e.task_hash in writes for e in wins),
                "tasks_without_a_write": no_op,
                "confirmed": {agent: confirmed(played[agent]) for agent in ("careful", "hasty")},
                "forced_on": fired,
                "least_fired_of_could": min(row["fired"] / row["could"] for row in fired.values()),
                "least_solved": min(row["solved"] for row in fired.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
