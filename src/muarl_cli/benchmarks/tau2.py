"""TAU2 as a scenario like any other: the benchmark's tasks, policy, tools and database in the project's own loop.

The official toolkits execute the calls, `tau2_reward` holds upstream's rules of scoring, and the user side gets the
official guidelines, greeting and end tokens. Invariant: a world costs what its episode touches; databases are parsed
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from muarl_cli.benchmarks.official_limits import tau2_limits
from muarl_cli.benchmarks.tau2_domains import DOMAINS, Domain
from muarl_cli.benchmarks.tau2_package import Package
from muarl_cli.benchmarks.tau2_results import official_figures, results_file
from muarl_cli.benchmarks.tau2_reward import DEFAULT_BASES, grade
from muarl_cli.benchmarks.tau2_world import PARTIES, Tau2World
from muarl_cli.conversation.episode import Episode, StateHashes
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.limits import Limits
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.worlds.scenario import USER_TOOLS, GoldCall, Outcome, Task, outputs_count, user_tools_of

GREETING = "Hi! How can I help you today?"
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
        self.user_tools = self.package.user_tools
        self._gold_states: dict[str, str] = {}

    @cached_property
    def policy_hash(self) -> str:
        """Changes when what the agent is told, or its tools, change."""
        return digest([self.policy, [tool.openai() for tool in self.tools]])

    @property
    def user_guidelines(self) -> str:
        """The package's rules for a model that plays the user."""
        return self.package.guidelines(bool(self.user_tools))

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
        return Tau2World(self.package, task.extra.get("initial_state"), user_tools_of(self, task))

    def user_prompt(self, task: Task) -> str:
        """The whole system prompt of a model that plays the user of `task`."""
        record = self._records[task.id]
        guidelines = self.package.guidelines(bool(user_tools_of(self, task)))
        return f"{guidelines}\n<scenario>\n{self.package.scenario_text(record)}\n</scenario>"

    def gold_state(self, task: Task) -> str:
        """Fingerprint of the end state of the gold calls, failing ones included."""
        if task.id not in self._gold_states:
            self._replay(task.id, task.gold, task.extra.get("initial_state"))
        return self._gold_states[task.id]

    def outcome(self, task: Task, world: Any, events: Sequence[Event]) -> Outcome:
        """Upstream's reward, with the single bases in the detail (see `tau2_reward`)."""
        gold, final = self.gold_state(task), world.fingerprint()
        asserted = task.extra.get("env_assertions") or ()
        reward, detail = grade(
            task,
            events,
            same_state=final == gold,
            assertions=[_plain(world).holds(assertion) for assertion in asserted],
            keep_outputs=outputs_count(task),
        )
        initial = self.world(task).fingerprint()
        return Outcome(
            reward, StateHashes(initial=initial, final=final, gold=gold), detail | {"revision": dict(self.revision)}
        )

    def official_limits(self, limits: Limits) -> Limits:
        """Those of the benchmark's own runner."""
        return tau2_limits(limits)

    def official_summary(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """What the benchmark reports beside the score."""
        return official_figures(self, episodes)

    def official_files(self, episodes: Sequence[Episode], agent: str) -> dict[str, bytes]:
        """The result file that the benchmark's own commands read, by its name."""
        data = results_file(self, self.package.records, episodes, agent)
        return {f"tau2/{self.name}/results.json": data}

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {str(record["id"]): record for record in self.package.records}

    @cached_property
    def _split_members(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(ids) for name, ids in self.package.splits.items()}

    def _task(self, record: Mapping[str, Any], split: str) -> Task:
        criteria = record.get("evaluation_criteria") or {}
        actions = criteria.get("actions") or ()
        gold = tuple(
            GoldCall(action["name"], action["arguments"], PARTIES[action.get("requestor") or "assistant"])
            for action in actions
        )
        start = record.get("initial_state")
        writes = self._replay(str(record["id"]), gold, start)
        scenario = record["user_scenario"]
        told = scenario["instructions"]
        brief = dict(told) if isinstance(told, Mapping) else {"task_instructions": told}
        initial = {"database": self.package.database} | ({"state": start} if start else {})
        extra = {
            "nl_assertions": tuple(criteria.get("nl_assertions") or ()),
            "initial_state": start,
            "official_splits": tuple(name for name, ids in self._split_members.items() if record["id"] in ids),
        }
        if criteria.get("env_assertions"):
            extra["env_assertions"] = tuple(criteria["env_assertions"])
        if record.get("user_tools") is not None:
            extra[USER_TOOLS] = tuple(record["user_tools"])
        if any(action.get("compare_args") is not None for action in actions):
            extra["compare"] = tuple(action.get("compare_args") for action in actions)
        return Task(
            id=str(record["id"]),
            source=self.source,
            scenario=self.name,
            split=split,
            family="+".join(sorted({call.name for call in writes})) or "no_write",
            brief={"persona": scenario.get("persona")} | brief,
            initial=initial,
            gold=gold,
            gold_writes=writes,
            communicate=tuple(criteria.get("communicate_info") or ()),
            bases=tuple(base.lower() for base in criteria.get("reward_basis") or DEFAULT_BASES),
            extra=extra,
        )

    def _replay(self, task_id: str, gold: Sequence[GoldCall], start: Mapping[str, Any] | None) -> tuple[GoldCall, ...]:
        """Play the gold calls on a fresh world; remember the end state, return the calls that changed anything."""
        world = Tau2World(self.package, start)
        effective = tuple(call for call in gold if world.execute(call.name, call.arguments, call.requestor).writes)
        self._gold_states[task_id] = world.fingerprint()
        return effective


def _plain(world: Any) -> Tau2World:
    """The benchmark's own world inside what a run put around it (faults, a guard)."""
    while not isinstance(world, Tau2World):
        world = world.inner
    return world
