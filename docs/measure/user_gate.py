"""Plants faults into the words of a model that plays the user, and counts how many the fidelity gate lets through.

A stand-in model rewords every turn faithfully, and once an episode says something that a bad user model says. Prints
JSON: per kind of fault how often it was planted, caught (tagged by its name) and heard by the agent, whether the
outcome is that of the scripted user, and how many faithful turns were refused for nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from muarl_cli.agents.scripted import Manner, ScriptedAgents
from muarl_cli.conversation.events import Actor
from muarl_cli.conversation.limits import Limits
from muarl_cli.conversation.loop import converse
from muarl_cli.conversation.protocols import Stage
from muarl_cli.engines.chat import Finish, Reply
from muarl_cli.users.agenda import AgendaUser, AgendaUsers
from muarl_cli.users.fidelity import affirms, asks_consent
from muarl_cli.users.llm import LlmUsers
from muarl_cli.worlds.domain import BUILTIN, builtin
from muarl_cli.worlds.language import said, value_text

LIMITS = Limits(60, 0, 3, 10, 0.0)
TASKS = 60


class Model:
    """Rewords; once, where `plant` has something to say about the turn, says that (and again on the retry)."""

    model = "stand-in"

    def __init__(self, plant: Callable[[Model], str | None]) -> None:
        self.plant = plant
        self.agenda: AgendaUser
        self.plan = self.heard = ""
        self.mine: list[str] = []
        self.planted = ""
        self.again = 0

    async def reply(self, messages: Any, sampling: Any) -> Reply:
        found = re.search(r"Say now: (.*?)(?:\n\nYour last|\nYour last|\Z)", messages[0]["content"], re.S)
        self.plan = found.group(1).strip() if found else ""
        self.heard = messages[-1]["content"]
        self.mine = [m["content"] for m in messages if m["role"] == "assistant"]
        words = self.plant(self) if not self.planted or self.again else None
        if words is not None:
            self.planted, self.again = words or "(nothing)", self.again + 1 if self.again else 1
            if self.again > 2:
                self.again = 0
        else:
            words, self.again = self.plan.replace("i want", "I would like").replace("please", "kindly"), 0
        return Reply(words, Finish.STOP if words else Finish.EMPTY)


def _hidden(model: Model) -> str | None:
    """A fact that is not to be told now and was not told or heard before."""
    known = " ".join((model.plan, model.heard, *model.mine))
    for goal in model.agenda.goals:
        for slot, value in goal.final.items():
            if (
                slot not in goal.unknown
                and not said(value, known)
                and (slot, value_text(value)) not in model.agenda.told
            ):
                return value_text(value)
    return None


def _early(model: Model) -> str | None:
    value = _hidden(model)
    return f"{model.plan} {value}." if value and not value.isalpha() else None


def _yes_due(model: Model) -> bool:
    return model.agenda.consented and affirms(model.plan) and asks_consent(model.heard)


def _old(model: Model) -> str | None:
    return next((m for m in model.mine if len(m.split()) > 8 and m != model.plan), None)


PLANTS: dict[str, Callable[[Model], str | None]] = {
    "role_flip": lambda m: f"How can I help you today? {m.plan}",
    "copied_instruction": lambda m: f"{m.plan} Say what stands under Say now, all of it, nothing else.",
    "invented_value": lambda m: f"{m.plan} My other number is 990017.",
    "stop_pending": lambda m: f"{m.plan} ###STOP###" if _yes_due(m) else None,
    "empty": lambda m: "",
    "repeated": _old,
    "contradiction": lambda m: "No, please do not do that." if _yes_due(m) else None,
    "false_consent": lambda m: (
        f"Yes, go ahead. {m.plan}" if asks_consent(m.heard) and not m.agenda.consented and not affirms(m.plan) else None
    ),
    "early_fact": _early,
    "missing_fact": lambda m: "Well, it is as it is." if re.search(r"\d", m.plan) else None,
    "early_stop": lambda m: f"{m.plan} Goodbye!" if "bye" not in m.plan and m.agenda.at < len(m.agenda.goals) else None,
}


async def _episode(domain: Any, task: Any, seed: int, users: Any) -> tuple[Any, float | None]:
    stage = Stage(domain.name, domain.policy, domain.compact, domain.tools, domain.greeting, seed)
    world = domain.world(task)
    agent, user = ScriptedAgents(domain.language, Manner.CAREFUL).open(stage, task), users.open(stage, task)
    transcript = await converse(agent, user, world, greeting=domain.greeting, limits=LIMITS)
    return transcript, domain.outcome(task, world, transcript.events).reward


async def measure() -> dict[str, Any]:
    faults: dict[str, Counter[str]] = {name: Counter() for name in PLANTS}
    clean: Counter[str] = Counter()
    for domain in map(builtin, BUILTIN):
        for seed, task in enumerate(domain.tasks("dev")[:TASKS]):
            plain, reward = await _episode(domain, task, seed, AgendaUsers(domain.language))
            for name, plant in {"": lambda m: None, **PLANTS}.items():
                model = Model(plant)

                def agenda(stage: Stage, task: Any, domain: Any = domain, model: Model = model) -> AgendaUser:
                    model.agenda = AgendaUsers(domain.language).open(stage, task)
                    return model.agenda

                users = LlmUsers(model, domain.user_prompt, temperature=0.0, max_tokens=99, agenda=agenda)
                transcript, outcome = await _episode(domain, task, seed, users)
                tags = {tag for event in transcript.events for tag in event.tags if tag.startswith("fidelity:")}
                turns = [event.text for event in transcript.events if event.actor is Actor.USER]
                if not name:
                    clean["turns"] += len(turns)
                    clean["refused"] += sum("fidelity:" in "".join(event.tags) for event in transcript.events)
                elif model.planted:
                    found = faults[name]
                    found["planted"] += 1
                    found["caught"] += f"fidelity:{name}" in tags
                    found["heard"] += any(model.planted == text for text in turns) and name != "repeated"
                    found["same_outcome"] += (outcome, transcript.end.reason) == (reward, plain.end.reason)
    totals = {key: sum(row[key] for row in faults.values()) for key in ("planted", "caught", "heard", "same_outcome")}
    return {
        **totals,
        "kinds": sum(row["planted"] > 0 for row in faults.values()),
        "faults": {name: dict(row) for name, row in faults.items()},
        "clean_turns": clean["turns"],
        "clean_refused": clean["refused"],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
