"""ACEBench Agent, multi-turn and multi-step, in the project's own loop, executed and judged by a checkout's own code.

Two manners: as officially (the whole conversation as text in one prompt, calls as text in square brackets; splits `en`
and `zh`) and with tools (`en-tools`, `zh-tools`), where calls are written down as the official text would be. Both end
where the official loop ends: at "finish conversation", or after forty messages, which is graded like any other end.
Invariant: what is executed and what the milestones are compared with is the official text of a turn, in both manners.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from muarl_cli.agents.fresh import FreshAgents
from muarl_cli.benchmarks.acebench_package import KINDS, LANGUAGES, Checkout, open_checkout
from muarl_cli.benchmarks.acebench_talk import FINISH, StepUsers, TurnUsers, history_of
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode, StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass, Write
from muarl_cli.conversation.limits import NO_LIMIT, Limits
from muarl_cli.conversation.protocols import AgentFactory, AgentTurn, Stage, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task

MESSAGES = 40
"""the official limit on messages after the opening"""
TOOLS = "-tools"
SPLITS = tuple(language + manner for manner in ("", TOOLS) for language in LANGUAGES)
_WRITES = """
    turn_on_wifi login_device send_message delete_message add_reminder delete_reminder login_food_platform
    add_food_delivery_order reserve_flight modify_flight cancel_reservation
"""
WRITES = frozenset(_WRITES.split())
DONE = "When everything is done, say 'finish conversation' and nothing else."
WORK = "Carry out the task of the user with the tools, step by step, and without asking the user anything."
TYPES = {"dict": "object", "list": "array", "float": "number"}
"""type names of the data that JSON Schema does not have"""
DEFECTS = (
    "four answers a language misspell a class, which is then not checked (`strict` checks it)",
    "multi-step prompts are Chinese in both languages: the language is not passed on",
    "an error in a multi-turn call is shown as single characters of an unfilled template",
    "milestones of multi_step 0 and 1 (en) name a product that no shop has, those of 12 and 13 leave out a login, "
    "those of 14 to 17 delete the message that is to be kept: with what is put right, all goals are reached",
    "the milestones of multi_step 0 and 1 write another reminder than the one that is expected and not checked",
    "milestones are compared word for word, and 14 of them (en) are no valid calls: process accuracy stays below 1",
    "the user's own turns are sent to the user model as system messages (official manner only)",
)


UNSEEN = frozenset({"agent_multi_turn_7", "agent_multi_step_0", "agent_multi_step_1"})
WHY_UNSEEN = "the answer misspells the class of the last write, which the official check therefore passes over"


@lru_cache(maxsize=4)
def acebench_scenario(kind: str) -> AceScenario:
    """The scenario of a kind; raises `MuarlError` for an unknown one."""
    if kind not in KINDS:
        raise MuarlError(f"unknown kind {kind!r} of ACEBench", next_step="multi_turn or multi_step")
    return AceScenario(kind)


class AceReferee:
    """The official loop's rules for one episode, and what was sent to execution."""

    def __init__(self, checkout: Checkout, trial: str, kind: str) -> None:
        self._checkout, self._trial, self._kind = checkout, trial, kind
        self._messages = 0
        self._opened = False
        self._over: tuple[EndReason, str] | None = None
        self.process: list[str] = []
        """the texts that milestones are compared with"""
        self.answers: list[ToolResult] = []
        """of the calls under way, in their order"""

    def limits(self, limits: Limits) -> Limits:
        return replace(limits, max_turns=NO_LIMIT, max_identical_calls=NO_LIMIT, max_failed_calls=NO_LIMIT)

    def reads(self, turn: AgentTurn) -> AgentTurn:
        """The turn as official text, carried out at once where it holds calls; else it is words."""
        unread = any(call.problem for call in turn.calls)
        text = bracketed(turn.calls) if turn.calls and not unread else turn.text
        words = replace(turn, text=text, calls=())
        if self._count(text, EndReason.AGENT_STOP):
            return words
        if not self._checkout.server.ask("decode", kind=self._kind, text=text):
            return words
        done = self._checkout.server.ask("execute", trial=self._trial, text=text)
        self.process.append(text)
        self._count("", EndReason.AGENT_STOP)
        if not done["calls"]:
            return words
        self.answers = _answers(done)
        calls = tuple(
            ToolCall(given.id if given else f"text{len(self.process):05d}x{i}", call["name"], call["arguments"])
            for i, (call, given) in enumerate(zip(done["calls"], _padded(turn.calls, done["calls"]), strict=True))
        )
        return replace(turn, text="", calls=calls)

    def watch(self, event: Event) -> None:
        if event.actor is Actor.USER and event.kind is Kind.SAY:
            if self._opened and self._kind == "multi_turn":
                self._count(event.text, EndReason.USER_STOP)
            self._opened = True

    def ended(self) -> tuple[EndReason, str] | None:
        return self._over

    def _count(self, text: str, who: EndReason) -> bool:
        """Count a message; whether the conversation is over with it. The first two cannot end it."""
        self._messages += 1
        if self._messages > 2 and FINISH in text:
            self._over = (who, FINISH)
        elif self._messages >= MESSAGES:
            self._over = (EndReason.AGENT_STOP, f"{MESSAGES} messages, the official limit")
        return self._over is not None


class AceWorld:
    """One entry's instances in the checkout's process."""

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(self, checkout: Checkout, tools: tuple[ToolSpec, ...], language: str, task: Task) -> None:
        self._checkout, self.tools = checkout, tools
        self.trial = f"t{os.urandom(8).hex()}"
        self._generation = checkout.ready()
        checkout.server.ask("open", trial=self.trial, language=language, entry=task.id)
        self.referee = AceReferee(checkout, self.trial, task.scenario)

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        """What the official executor answered to this call when it read the turn."""
        await asyncio.sleep(0)
        return self.referee.answers.pop(0)

    def fingerprint(self) -> str:
        return str(self._checkout.server.ask("state", trial=self.trial))

    def close(self) -> None:
        if self._checkout.server.alive == self._generation:
            self._checkout.server.ask("close", trial=self.trial)


class AceScenario:
    """A kind (see the `Scenario` protocol); splits are languages and manners."""

    source = "acebench"
    policy = ""
    greeting = ""
    agent_may_stop = False

    def __init__(self, kind: str) -> None:
        self.name = kind
        self.compact = f"acebench {kind}"
        self.tools: tuple[ToolSpec, ...] = ()
        self.users = StepUsers() if kind == "multi_step" else None
        self._entries: dict[tuple[str, str], Mapping[str, Any]] = {}

    @cached_property
    def policy_hash(self) -> str:
        return digest([self.source, self.name, open_checkout().revision["upstream"]])

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def tasks(self, split: str) -> Sequence[Task]:
        """The entries of a language, in their order, to be played in the split's manner."""
        if split not in SPLITS:
            raise MuarlError(
                f"acebench:{self.name} has no split {split!r}",
                next_step=f"one of: {', '.join(SPLITS)}",
                code=ExitCode.USAGE,
            )
        return tuple(self._task(entry, split) for entry in open_checkout().entries(_language(split), self.name))

    def stage(self, task: Task, seed: int) -> Stage:
        """What the parties are told with tools; the official manner shows its own texts (`presented`)."""
        rules = self._entry(task)["prompts"]["rules"] if task.split.endswith(TOOLS) else ""
        policy = rules or f"{WORK}\n{DONE}"
        return Stage(self.name, policy, self.compact, self._specs(task), self.greeting, seed)

    def presented(self, agents: AgentFactory) -> AgentFactory:
        """A model as agent, shown each turn what the official loop shows it; with tools it is left as it is."""
        return FreshAgents(agents, self._official_prompt)

    def worded_users(self, speaker: Any, temperature: float, max_tokens: int, cassette: Any) -> Any:
        """The official user, worded by a model."""
        return TurnUsers(speaker, temperature, max_tokens, cassette, self._user_prompt)

    def world(self, task: Task) -> AceWorld:
        return AceWorld(open_checkout(), self._specs(task), _language(task.split), task)

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        """End-to-end: the official check of the end state. Beside it the process accuracy, and `strict`."""
        while hasattr(world, "inner"):
            world = world.inner
        server = open_checkout().server
        verdict = server.ask("check", trial=world.trial, process=world.referee.process)
        initial, gold = task.extra["states"]
        detail = {
            "bases": {"end_to_end": verdict["valid"]},
            "process": verdict["process"],
            "strict": verdict["strict"],
            "errors": verdict["errors"],
            "result": {"result": server.ask("result", trial=world.trial), "process": world.referee.process},
            "revision": open_checkout().revision,
        }
        return Outcome(float(verdict["valid"]), StateHashes(initial, world.fingerprint(), gold), detail)

    def user_prompt(self, task: Task) -> str:
        """What the user of `task` wants, in the benchmark's words."""
        return str(task.brief["instruction"])

    def official_summary(self, episodes: Iterable[Episode]) -> dict[str, Any]:
        """The benchmark's own two accuracies; an invalid episode counts as failed, as officially."""
        done = list(episodes)
        total = len(done) or 1
        return {
            "end_to_end": sum(e.reward or 0.0 for e in done) / total,
            "process": sum(e.detail.get("process", 0.0) for e in done) / total,
            "strict": sum(bool(e.detail.get("strict")) for e in done) / total,
            "revision": open_checkout().revision,
            "defects": list(DEFECTS),
        }

    def official_files(self, episodes: Iterable[Episode], agent: str) -> dict[str, bytes]:
        """Result files that `eval_main.py` reads, by path below a checkout; the first trial of each entry."""
        found: dict[str, dict[str, str]] = {}
        for episode in sorted(episodes, key=lambda e: e.rollout):
            language = _language(episode.split)
            own = episode.detail.get("result", {"result": [], "process": []})
            path = f"result_all/result_{language}/{agent}/data_agent_{self.name}_result.json"
            line = json.dumps({"id": episode.task_id, **own}, ensure_ascii=False) + "\n"
            found.setdefault(path, {}).setdefault(episode.task_id, line)
        return {
            path: "".join(rows[key] for key in sorted(rows, key=lambda name: int(name.rsplit("_", 1)[1]))).encode()
            for path, rows in found.items()
        }

    def _official_prompt(self, task: Task, events: Sequence[Event]) -> tuple[str, str] | None:
        if task.split.endswith(TOOLS):
            return None
        prompts = self._entry(task)["prompts"]
        return prompts["system"], prompts["before"] + history_of(self.name, events) + prompts["after"]

    def _user_prompt(self, task: Task) -> tuple[str, str, str]:
        """(system prompt, opening question, role of the user's own turns)."""
        opening = {"en": "Is there anything you need help with today?", "zh": "今天有什么需要帮助的吗？"}
        role = "assistant" if task.split.endswith(TOOLS) else "system"
        return self._entry(task)["prompts"]["user"], opening[_language(task.split)], role

    def _task(self, entry: Mapping[str, Any], split: str) -> Task:
        gold = tuple(GoldCall(call["name"], call["arguments"]) for call in entry["gold"])
        return Task(
            id=entry["id"],
            source=self.source,
            scenario=self.name,
            split=split,
            family="+".join(entry["classes"]),
            brief={"instruction": entry["question"]},
            initial={"state": entry["states"][0], "entry": entry["id"]},  # some entries are equal but for their id
            gold=gold,
            gold_writes=tuple(call for call, flag in zip(gold, entry["writes"], strict=True) if flag),
            bases=("end_to_end",),
            extra={"states": tuple(entry["states"]), "closing": FINISH},
        )

    def _entry(self, task: Task) -> Mapping[str, Any]:
        language = _language(task.split)
        key = (language, task.id)
        if key not in self._entries:
            self._entries |= {(language, e["id"]): e for e in open_checkout().entries(language, self.name)}
        return self._entries[key]

    def _specs(self, task: Task) -> tuple[ToolSpec, ...]:
        return tuple(_spec(json.dumps(function)) for function in self._entry(task)["functions"])


def bracketed(calls: Sequence[ToolCall]) -> str:
    """Calls as the official text: [name(key='value'), ...]."""
    texts = (f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls)
    return f"[{', '.join(texts)}]"


def _answers(done: Mapping[str, Any]) -> list[ToolResult]:
    """An answer a call. The official executor gives one for all where the first that failed ended them."""
    count = len(done["calls"])
    texts = (list(done["texts"]) + [done["texts"][-1] if done["texts"] else ""] * count)[:count]
    writes = tuple(Write(*place) for place in done["writes"])
    return [ToolResult(text, done["ok"], writes if i == count - 1 else ()) for i, text in enumerate(texts)]


def _padded(given: Sequence[ToolCall], calls: Sequence[Any]) -> list[ToolCall | None]:
    return [given[i] if i < len(given) else None for i in range(len(calls))]


def _language(split: str) -> str:
    return split.removesuffix(TOOLS)


@lru_cache(maxsize=512)
def _spec(text: str) -> ToolSpec:
    function = json.loads(text)
    klass = ToolClass.WRITE if function["name"] in WRITES else ToolClass.READ
    return ToolSpec(function["name"], function["description"], _schema(function["parameters"]), klass)


def _schema(value: Any) -> Any:
    """The data's parameter description as JSON Schema."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: _schema(item) for key, item in value.items()}
    if isinstance(named.get("type"), str):
        named["type"] = TYPES.get(named["type"], named["type"])
    return named
