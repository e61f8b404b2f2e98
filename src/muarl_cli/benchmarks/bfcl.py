"""BFCL multi-turn and parallel, in the project's own loop, judged by the official checkers.

The user's turns are data; the agent answers each with steps of calls until it says something or sends a call that
cannot be read; more than the official number of steps in one turn fails the entry. What the agent sent is kept as the
official result files hold it, so the official evaluator can be run on our results. Invariant: the verdict is the
official checker's on exactly those results, and no string of the agent's is ever evaluated before its name and argument
names were checked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from muarl_cli.benchmarks.bfcl_package import (
    CATEGORIES,
    VERSIONS,
    Category,
    Package,
    Trial,
    arguments_text,
    open_package,
)
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import Episode, StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass, Write
from muarl_cli.conversation.limits import NO_LIMIT, Limits
from muarl_cli.conversation.protocols import AgentTurn, Stage, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.users.written import WrittenUsers
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task

"""the official loop knows one limit, the steps of a turn"""
_WRITES = """
    close_ticket create_ticket edit_ticket logout resolve_ticket ticket_login
    add_to_watchlist cancel_order fund_account place_order remove_stock_from_watchlist trading_login trading_logout
    withdraw_funds make_transaction update_market_status update_stock_price
    activateParkingBrake adjustClimateControl fillFuelTank lockDoors pressBrakePedal releaseBrakePedal setCruiseControl
    setHeadlights set_navigation startEngine
    authenticate_twitter comment follow_user mention post_tweet retweet unfollow_user
    cp echo mkdir mv rm rmdir touch
    authenticate_travel book_flight cancel_booking purchase_insurance register_credit_card set_budget_limit
    add_contact delete_message message_login send_message
"""
WRITES = frozenset(_WRITES.split())
"""tools that can change what the official state check compares"""
UNREACHABLE = {"v3": frozenset({"multi_turn_base_154"})}
WHY_UNREACHABLE = "five questions and six turns of gold: the official loop, too, ends after the fifth and is failed"
DEFECTS = (
    "V3 multi_turn_base_154 has five questions and six turns of gold: it cannot be passed",
    "calling tools in a turn whose gold is empty is not penalised: the official irrelevance check is never called",
    "`excluded_function` is ignored: tools that the data excludes are offered",
    "a string argument that holds a tool's name and a bracket is rewritten by the official executor",
)


@lru_cache(maxsize=16)
def bfcl_scenario(category: str) -> BfclScenario:
    """The scenario of a category; raises `MuarlError` for an unknown one."""
    if category not in CATEGORIES:
        raise MuarlError(
            f"unknown BFCL category {category!r}", next_step=f"one of: {', '.join(CATEGORIES)}", code=ExitCode.USAGE
        )
    return BfclScenario(category)


class BfclReferee:
    """The official loop's rules, and what was sent so far: turn -> step -> calls or words."""

    def __init__(self, step_limit: int, last_turn: int, one_turn: bool) -> None:
        self._step_limit, self._last_turn, self._one_turn = step_limit, last_turn, one_turn
        self.turns: list[list[Any]] = []
        self._spoke = False

    def limits(self, limits: Limits) -> Limits:
        return replace(limits, max_turns=NO_LIMIT, max_identical_calls=NO_LIMIT, max_failed_calls=NO_LIMIT)

    def reads(self, turn: AgentTurn) -> AgentTurn:
        """A step with a call that cannot be read is words: none of it is executed and the user is next."""
        unread = next((call for call in turn.calls if call.problem), None)
        if unread is not None:
            turn = replace(turn, text=unread.raw or turn.text, calls=())
        step: Any = [(call.name, dict(call.arguments)) for call in turn.calls] or turn.text
        self.turns[-1].append(step)
        self._spoke = True
        return turn

    def watch(self, event: Event) -> None:
        if event.actor is Actor.USER and event.kind is Kind.SAY:
            self.turns.append([])

    def ended(self) -> tuple[EndReason, str] | None:
        if self._one_turn and self._spoke:
            return EndReason.USER_STOP, "one turn"
        steps = sum(isinstance(step, list) for step in self.turns[-1])
        if steps <= self._step_limit:
            return None
        # Officially, too, an entry that is cut off in its last turn is graded like any other.
        reason = EndReason.USER_STOP if len(self.turns) == self._last_turn else EndReason.LIMIT_AGENT
        return reason, f"{steps} steps in one turn"

    def result(self, answered: int) -> list[list[Any]]:
        """As the official result files hold it, for the turns that were begun."""
        return [
            [[{name: arguments_text(a)} for name, a in step] if isinstance(step, list) else step for step in turn]
            for turn in self.turns[:answered]
        ]

    def decoded(self, answered: int) -> list[list[list[dict[str, Any]]]]:
        """The same with the steps that hold calls only, as the official evaluator decodes them."""
        return [
            [[{"name": name, "arguments": a} for name, a in step] for step in turn if isinstance(step, list)]
            for turn in self.turns[:answered]
        ]


class BfclWorld:
    """One entry's instances in the package's process; for the parallel category, nothing is executed."""

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(self, tools: tuple[ToolSpec, ...], referee: BfclReferee, trial: Trial | None) -> None:
        self.tools, self.referee, self._trial = tools, referee, trial

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        if self._trial is None:
            return ToolResult("")
        answer = await asyncio.to_thread(self._trial.call, call.name, call.arguments)
        return ToolResult(answer["text"], answer["ok"], tuple(Write(*place) for place in answer["writes"]))

    def fingerprint(self) -> str:
        return self._trial.state() if self._trial else ""

    def close(self) -> None:
        if self._trial:
            self._trial.close()


class BfclScenario:
    """A category (see the `Scenario` protocol); its splits are the data revisions."""

    source = "bfcl"
    policy = ""
    greeting = ""
    agent_may_stop = False

    def __init__(self, category: str) -> None:
        self.name = category
        self.compact = f"bfcl {category}"
        self.one_turn = category == "parallel"
        self.users = WrittenUsers()
        self.tools: tuple[ToolSpec, ...] = ()
        self._tools: dict[str, tuple[ToolSpec, ...]] = {}

    @cached_property
    def policy_hash(self) -> str:
        """There is no policy; tools belong to the tasks, whose revision is in every episode."""
        return digest([self.source, self.name])

    def splits(self) -> tuple[str, ...]:
        return tuple(VERSIONS)

    def tasks(self, split: str) -> Sequence[Task]:
        """The official entries of a data revision (v3 or v4), in their order."""
        package = open_package(split)
        category = package.category(self.name)
        return tuple(self._task(package, category, entry) for entry in category.entries)

    def stage(self, task: Task, seed: int) -> Stage:
        """What the parties of an episode of `task` are told: tools are the task's own."""
        held = frozenset(task.extra["held"])
        return Stage(self.name, self.policy, self.compact, self._task_tools(task), self.greeting, seed, held=held)

    def world(self, task: Task) -> BfclWorld:
        package = open_package(task.split)
        category = package.category(self.name)
        trial = None if self.one_turn else Trial(package, category.name, task.id)
        referee = BfclReferee(category.step_limit, len(task.extra["user_turns"]), self.one_turn)
        return BfclWorld(self._task_tools(task), referee, trial)

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        """The official checker's verdict. An entry that was cut off has fewer turns than the gold and fails there."""
        while hasattr(world, "inner"):
            world = world.inner
        package = open_package(task.split)
        category = package.category(self.name)
        ends = [event.text for event in events if event.kind is Kind.END]
        answered = len(task.extra["user_turns"])
        package.generation()
        verdict = package.server.ask(
            "check", category=category.name, entry=task.id, turns=world.referee.decoded(answered)
        )
        states = self._states(task, world, verdict["valid"])
        detail = {
            "bases": {"official": verdict["valid"]},
            "error_type": verdict.get("error_type", ""),
            "error": verdict.get("error_message", ""),
            "result": world.referee.result(answered),
            "end": ends[-1] if ends else "",
            "revision": package.revision,
        }
        return Outcome(float(verdict["valid"]), states, detail)

    def user_prompt(self, task: Task) -> str:
        """Nobody words this user; the turns, for a person who reads along."""
        return "\n\n".join(text for text, _ in task.extra["user_turns"])

    def scorer_passes(self, task: Task) -> bool:
        """Whether the official checker passes the gold calls as they stand, turn by turn, without a conversation."""
        package = open_package(task.split)
        category = package.category(self.name)
        calls = iter(task.gold)
        turns = [
            [[{"name": call.name, "arguments": dict(call.arguments)}] for call in islice(calls, count)]
            for count in task.extra["gold_turns"]
        ]
        return bool(package.server.ask("check", category=category.name, entry=task.id, turns=turns)["valid"])

    def official_summary(self, episodes: Iterable[Episode]) -> dict[str, Any]:
        """The category's accuracy over all trials, invalid episodes counted as failed, as officially; and why entries
        failed."""
        done = list(episodes)
        kinds = [e.detail.get("error_type") or e.end.reason.value for e in done if e.reward != 1.0]
        return {
            "accuracy": sum(e.reward or 0.0 for e in done) / (len(done) or 1),
            "failures": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "revision": open_package(done[0].split).revision if done else {},
            "defects": list(DEFECTS),
        }

    def official_files(self, episodes: Iterable[Episode], agent: str) -> dict[str, bytes]:
        """Result files that the official evaluator reads, by path below its project folder; the first trial of each
        entry. An episode that died of a fault is recorded as the official command line records its own errors."""
        rows: dict[str, dict[str, Any]] = {}
        prefixes = set()
        for episode in sorted(episodes, key=lambda e: e.rollout):
            fault = f"Error during inference: {episode.end.reason.value} {episode.end.detail}"
            rows.setdefault(episode.task_id, {"id": episode.task_id, "result": episode.detail.get("result", fault)})
            prefixes.add(open_package(episode.split).category(self.name).prefix)
        if len(prefixes) != 1:
            return {}
        (prefix,) = prefixes
        kind = "non_live" if self.one_turn else "multi_turn"
        folder = f"result/{agent}/" + (f"{kind}/" if prefix != "BFCL_v3" else "")
        name = "parallel" if self.one_turn else f"multi_turn_{self.name}"
        ordered = sorted(rows.values(), key=lambda row: int(row["id"].rsplit("_", 1)[1]))
        if self.one_turn:  # the official loop keeps the one step of a single-turn entry bare
            ordered = [{**row, "result": _first_step(row["result"])} for row in ordered]
        text = "".join(json.dumps(row) + "\n" for row in ordered)
        return {f"{folder}{prefix}_{name}_result.json": text.encode()}

    def _states(self, task: Task, world: BfclWorld, valid: bool) -> StateHashes:
        if not self.one_turn:
            initial, gold = task.extra["states"]
            return StateHashes(initial, world.fingerprint(), gold)
        right = digest([task.id, "right"])  # there is no state: the end state is the answer
        return StateHashes("", right if valid else digest([task.id, world.referee.result(1)]), right)

    def _task(self, package: Package, category: Category, entry: Mapping[str, Any]) -> Task:
        gold = [GoldCall(call["name"], call["arguments"]) for turn in entry["gold"] for call in turn]
        changed = [flag for turn in entry["writes"] for flag in turn]
        turns = self._user_turns(entry)
        self._tools.setdefault(f"{package.split}:{entry['id']}", _specs(entry["tools"]))
        return Task(
            id=entry["id"],
            source=self.source,
            scenario=self.name,
            split=package.split,
            family="+".join(entry["classes"]) or self.name,
            brief={"turns": [text for text, _ in turns]},
            initial={"state": entry["states"][0] if entry["states"] else "", "entry": entry["id"]},
            gold=tuple(gold),
            gold_writes=tuple(call for call, flag in zip(gold, changed, strict=False) if flag),
            bases=("official",),
            extra={
                "user_turns": turns,
                "gold_turns": tuple(len(turn) for turn in entry["gold"]),
                "steps_a_turn": 0 if self.one_turn else category.step_limit,
                "held": tuple(name for names in entry["held"].values() for name in names),
                "states": tuple(entry["states"]),
            },
        )

    @staticmethod
    def _user_turns(entry: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Text and tags of each user turn; a turn that releases held tools names them."""
        return tuple(
            (
                "\n".join(message["content"] for message in messages),
                tuple(f"tool:{name}" for name in entry["held"].get(str(i), ())),
            )
            for i, messages in enumerate(entry["turns"])
        )

    def _task_tools(self, task: Task) -> tuple[ToolSpec, ...]:
        return self._tools[f"{task.split}:{task.id}"]


def _first_step(result: Any) -> Any:
    return result[0][0] if isinstance(result, list) and result and result[0] else result


@lru_cache(maxsize=4096)
def _spec(text: str) -> ToolSpec:
    function = json.loads(text)["function"]
    klass = ToolClass.WRITE if function["name"] in WRITES else ToolClass.READ
    return ToolSpec(function["name"], function["description"], function["parameters"], klass, function.get("response"))


def _specs(tools: Sequence[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """The official tool definitions as ours; equal ones, which most entries share, are one object."""
    return tuple(_spec(json.dumps(tool, sort_keys=False)) for tool in tools)
