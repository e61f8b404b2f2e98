"""TAU2 as a scenario like any other: the benchmark's tasks, policy, tools and database in the project's own loop.

Reward as upstream computes it on this revision: the product over a task's bases, DB (the end state equals that of the
gold calls) and COMMUNICATE (every required text said by the agent). What is not judged here is reported as null, never
passed silently. A world costs what its episode touches; the database is parsed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from muarl_cli.benchmarks.shared_db import View
from muarl_cli.benchmarks.tau2_package import DOMAINS, Domain, Package
from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import StateHashes
from muarl_cli.conversation.events import Actor, Event, Kind, ToolClass, Write
from muarl_cli.conversation.protocols import ToolFault, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.scenario import GoldCall, Outcome, Task

GREETING = "Hi! How can I help you today?"
DEFAULT_BASES = ("DB", "COMMUNICATE")
"""what upstream multiplies where a task names no bases, as none does in this revision's retail"""
INSTRUCTIONS = """You are a customer service agent. Help the user within the <policy> below.
A turn of yours is one of two things, never both at once:
- words to the user, or
- a tool call.
Be helpful, keep to the policy, and write tool arguments as valid JSON."""


@lru_cache(maxsize=8)
def tau2_scenario(domain: str) -> Tau2Scenario:
    """The scenario of a TAU2 domain; raises `MuarlError` for an unknown domain or an absent package."""
    if domain not in DOMAINS:
        raise MuarlError(
            f"unknown TAU2 domain {domain!r}",
            next_step=f"one of: {', '.join(sorted(DOMAINS))}",
            code=ExitCode.USAGE,
        )
    return Tau2Scenario(DOMAINS[domain])


class Tau2World:
    """One episode's environment: the official toolkit on a private view of the shared database."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._view = View(package.base)
        self._execute = package.executor(self._view)
        self._known: dict[tuple[str, str], int] = {}
        self.tools: tuple[ToolSpec, ...] = package.tools
        self.user_tools: tuple[ToolSpec, ...] = ()

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        """Execute a call; a refusal is an ordinary "Error: ..." answer, as upstream's environment gives it."""
        return self.execute(call.name, call.arguments)

    def execute(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """The same without a loop. Upstream never undoes what a refused call changed on its way, nor is it undone here;
        the write set names it."""
        try:
            text, ok = self._execute(name, arguments), True
        except (MemoryError, RecursionError) as error:
            raise ToolFault(f"{name}: {type(error).__name__}") from error
        except MuarlError:
            raise
        except Exception as error:  # upstream turns whatever a tool raises into an observation for the agent
            text, ok = f"Error: {_message(error)}", False
        writes = self._written() if self._package.domain.class_of(name) is ToolClass.WRITE else ()
        return ToolResult(text, ok, writes)

    def fingerprint(self) -> str:
        return self._view.fingerprint()

    def diff(self) -> list[dict[str, Any]]:
        """What differs from the initial database, a row a record."""
        return self._view.diff()

    def close(self) -> None:
        return None

    def _written(self) -> tuple[Write, ...]:
        places = self._view.changed(self._known)
        if places:
            self._known = self._view.touched()
        return tuple(Write(table, key, _owner(self._view.record(table, key))) for table, key in places)


class Tau2Scenario:
    """A TAU2 domain (see the `Scenario` protocol)."""

    source = "tau2"
    greeting = GREETING
    agent_may_stop = False

    def __init__(self, domain: Domain) -> None:
        self.name = domain.name
        self.package = Package(domain)
        self.policy = f"<instructions>\n{INSTRUCTIONS}\n</instructions>\n<policy>\n{self.package.policy}\n</policy>"
        self.compact = f"tau2 {domain.name}"
        self.tools = self.package.tools
        self.user_tools: tuple[ToolSpec, ...] = ()
        self._gold_states: dict[str, str] = {}

    @cached_property
    def policy_hash(self) -> str:
        """Changes when what the agent is told, or its tools, change."""
        return digest([self.policy, [tool.openai() for tool in self.tools]])

    @property
    def user_guidelines(self) -> str:
        """The package's rules for a model that plays the user."""
        return self.package.guidelines

    @property
    def revision(self) -> Mapping[str, str]:
        """What has to stand beside every score of this benchmark."""
        return self.package.revision

    def splits(self) -> tuple[str, ...]:
        return tuple(self.package.splits)

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of an official split, in the package's order."""
        if split not in self.package.splits:
            raise MuarlError(
                f"tau2:{self.name} has no split {split!r}",
                next_step=f"one of: {', '.join(self.splits())}",
                code=ExitCode.USAGE,
            )
        return tuple(self._task(self._records[task_id], split) for task_id in self.package.splits[split])

    def world(self, task: Task) -> Tau2World:
        if task.extra.get("initial_state"):
            raise MuarlError(
                f"task tau2:{self.name}:{task.id} starts from a state of its own, which is not supported yet",
                next_step="leave the task out of --tasks",
            )
        return Tau2World(self.package)

    def user_prompt(self, task: Task) -> str:
        """The whole system prompt of a model that plays the user of `task`."""
        record = self._records[task.id]
        return f"{self.user_guidelines}\n<scenario>\n{self.package.scenario_text(record)}\n</scenario>"

    def gold_state(self, task: Task) -> str:
        """Fingerprint of the end state of the gold calls, failing ones included."""
        if task.id not in self._gold_states:
            self._replay(task.id, task.gold)
        return self._gold_states[task.id]

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        """Upstream's reward: 0 for an end that is not graded, else the product over the task's bases."""
        gold, final = self.gold_state(task), world.fingerprint()
        missing = missing_texts(task.communicate, events)
        judged: dict[str, bool | None] = dict.fromkeys((base.lower() for base in task.bases), None)
        if "db" in judged:
            judged["db"] = final == gold
        if "communicate" in judged:
            judged["communicate"] = not missing
        unjudged = sorted(base for base, passed in judged.items() if passed is None)
        assertions = task.extra.get("nl_assertions") or ()
        reason = _end_reason(events)
        graded = reason is None or reason.graded
        reward = float(graded and all(passed is not False for passed in judged.values()))
        detail = {
            "bases": judged,
            "missing": list(missing),
            "unjudged": unjudged,
            "nl_assertions": {"count": len(assertions), "passed": None},
            "graded": graded,
            "revision": dict(self.revision),
        }
        initial = View(self.package.base).fingerprint()
        return Outcome(reward, StateHashes(initial=initial, final=final, gold=gold), detail)

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {str(record["id"]): record for record in self.package.records}

    def _task(self, record: Mapping[str, Any], split: str) -> Task:
        criteria = record.get("evaluation_criteria") or {}
        actions = criteria.get("actions") or ()
        gold = tuple(GoldCall(action["name"], action["arguments"], _requestor(action)) for action in actions)
        writes = self._replay(str(record["id"]), gold)
        scenario = record["user_scenario"]
        told = scenario["instructions"]
        brief = dict(told) if isinstance(told, Mapping) else {"task_instructions": told}
        return Task(
            id=str(record["id"]),
            source=self.source,
            scenario=self.name,
            split=split,
            family="+".join(sorted({call.name for call in writes})) or "no_write",
            brief={"persona": scenario.get("persona")} | brief,
            initial={"database": f"{self.package.base.hash:064x}"[:16]},
            gold=gold,
            gold_writes=writes,
            communicate=tuple(criteria.get("communicate_info") or ()),
            bases=tuple(base.lower() for base in criteria.get("reward_basis") or DEFAULT_BASES),
            extra={
                "nl_assertions": tuple(criteria.get("nl_assertions") or ()),
                "initial_state": record.get("initial_state"),
                "official_splits": tuple(name for name, ids in self.package.splits.items() if record["id"] in ids),
            },
        )

    def _replay(self, task_id: str, gold: Sequence[GoldCall]) -> tuple[GoldCall, ...]:
        """Play the gold calls on a fresh world; remember the end state, return the calls that changed anything."""
        world = Tau2World(self.package)
        effective = tuple(call for call in gold if world.execute(call.name, call.arguments).writes)
        self._gold_states[task_id] = world.fingerprint()
        return effective


def missing_texts(required: Sequence[str], events: Sequence[Event]) -> tuple[str, ...]:
    """Which required texts no single message of the agent contains. Upstream's rule: case is ignored and commas are
    taken out of the message only, so a required text that has a comma can never be found."""
    said = [
        event.text.lower().replace(",", "") for event in events if event.actor is Actor.AGENT and event.kind is Kind.SAY
    ]
    return tuple(text for text in required if not any(text.lower() in message for message in said))


def _end_reason(events: Sequence[Event]) -> EndReason | None:
    ends = [event.text for event in events if event.kind is Kind.END]
    return EndReason(ends[-1]) if ends else None


def _requestor(action: Mapping[str, Any]) -> str:
    return "user" if action.get("requestor") == "user" else "agent"


def _owner(record: Any) -> str:
    return str(getattr(record, "user_id", "") or "")


def _message(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)
