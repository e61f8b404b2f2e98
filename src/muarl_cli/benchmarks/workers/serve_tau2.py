"""TAU2's own environments and evaluator (`tau2`, from a checkout; Python 3.12), served.

Environments are the benchmark's, one an episode; rewards come from its `evaluate_simulation`. It calls no model: where
a task's reward needs a judge of words, the other bases are evaluated and that one is left null.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

WHEN = "2025-01-01T00:00:00"
DOMAINS = ("retail", "airline", "telecom", "banking_knowledge", "mock")
RETRIEVAL = {"banking_knowledge": "grep_only"}
"""how the agent gets at a domain's documents: the variant that needs no embeddings, no sandbox, no further package"""


class Host:
    """The verbs."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.known: dict[str, dict[str, Any]] = {}
        self.episodes: dict[int, dict[str, Any]] = {}
        self.ends: dict[tuple[str, str], tuple[str, str, list[int]]] = {}
        self.dual: dict[str, bool] = {}

    def hello(self) -> dict[str, Any]:
        """Make ready; what is served."""
        if not (self.root / "src" / "tau2").is_dir():
            raise FileNotFoundError(f"{self.root} holds no src/tau2")
        os.environ.setdefault("TAU2_DATA_DIR", str(self.root / "data"))
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        sys.path.insert(0, str(self.root / "src"))
        logger = importlib.import_module("loguru").logger
        logger.remove()
        self.registry = importlib.import_module("tau2.registry").registry
        logger.remove()  # importing it adds one again
        self.messages = importlib.import_module("tau2.data_model.message")
        self.simulation = importlib.import_module("tau2.data_model.simulation")
        self.evaluator = importlib.import_module("tau2.evaluator.evaluator")
        self.agent = importlib.import_module("tau2.agent.llm_agent")
        if set(RETRIEVAL) & set(self.domains()):  # before this domain came there was no such module
            self.build = importlib.import_module("tau2.runner.build")
        return {"domains": self.domains()}

    def domains(self) -> list[str]:
        return [name for name in DOMAINS if name in self.registry.get_domains()]

    def spec(self, domain: str) -> dict[str, Any]:
        """What both sides are told, and the tools."""
        env = self.made(domain)
        users = env.get_user_tools() if env.user_tools is not None else []
        prompt = self.agent.SYSTEM_PROMPT.format(
            agent_instruction=self.agent.AGENT_INSTRUCTION, domain_policy=env.get_policy()
        )
        return {
            "policy": prompt,
            "greeting": "Hi! How can I help you today?",
            "guidelines": self.guidelines(bool(users)),
            "tools": [described(tool, env.tools, domain) for tool in env.get_tools()],
            "user_tools": [described(tool, env.user_tools, domain) for tool in users],
            "terminal": [],
            "splits": list(self.splits(domain)),
            "retrieval": RETRIEVAL.get(domain, ""),
        }

    def made(self, domain: str, task: Any = None) -> Any:
        """The benchmark's environment, at its beginning."""
        return self.registry.get_env_constructor(domain)(**self.options(domain, task))

    def options(self, domain: str, task: Any = None) -> dict[str, Any]:
        """What the benchmark's own runner gives an environment of this domain: the way to its documents, and since
        1.0.1 which calls that only look things up the task asks for (others are not held against an agent)."""
        if domain not in RETRIEVAL:
            return {}
        options: dict[str, Any] = {"retrieval_variant": RETRIEVAL[domain]}
        if task is not None and hasattr(self.build, "_derive_read_log_allowlist"):
            options["read_log_allowlist"] = self.build._derive_read_log_allowlist(task)
        return options

    def dual_control(self, domain: str) -> bool:
        if domain not in self.dual:
            self.dual[domain] = self.made(domain).user_tools is not None
        return self.dual[domain]

    def guidelines(self, tools: bool) -> str:
        folder = Path(os.environ["TAU2_DATA_DIR"]) / "tau2" / "user_simulator"
        name = "simulation_guidelines_tools.md" if tools else "simulation_guidelines.md"
        return (folder / name).read_text(encoding="utf-8")

    def splits(self, domain: str) -> dict[str, Any]:
        loader = self.registry.get_task_splits_loader(domain)
        return loader() if loader else {"base": [task.id for task in self.registry.get_tasks_loader(domain)()]}

    def tasks(self, domain: str, split: str) -> list[dict[str, Any]]:
        """All tasks of a split, gold calls that change nothing marked."""
        splits = self.splits(domain)
        tasks = self.all_tasks(domain)
        return [self.described(domain, tasks[str(i)], splits) for i in splits[split]]

    def all_tasks(self, domain: str) -> dict[str, Any]:
        if domain not in self.known:
            load = self.registry.get_tasks_loader(domain)
            try:
                tasks = load(None)
            except TypeError:  # a task set without splits
                tasks = load()
            self.known[domain] = {str(task.id): task for task in tasks}
        return self.known[domain]

    def records(self, domain: str, ids: list[str]) -> list[dict[str, Any]]:
        """The benchmark's own records of the named tasks."""
        return [self.all_tasks(domain)[name].model_dump(mode="json") for name in ids]

    def described(self, domain: str, task: Any, splits: Any) -> dict[str, Any]:
        criteria = task.evaluation_criteria
        actions = list(criteria.actions or []) if criteria else []
        writes = self.replay(domain, str(task.id))
        told = task.user_scenario.instructions
        brief = told.model_dump() if hasattr(told, "model_dump") else {"task_instructions": told}
        named = getattr(task, "user_tools", None)
        tools = self.dual_control(domain) if named is None else bool(named)
        start = task.initial_state.model_dump(mode="json") if task.initial_state else None
        return {
            "id": str(task.id),
            "brief": {"persona": task.user_scenario.persona, **brief},
            "prompt": f"{self.guidelines(tools)}\n\n<scenario>\n{task.user_scenario}\n</scenario>",
            "gold": [
                {"name": a.name, "arguments": a.arguments, "requestor": "user" if a.requestor == "user" else "agent"}
                for a in actions
            ],
            "writes": writes,
            "communicate": list((criteria.communicate_info if criteria else None) or []),
            "bases": [basis.value.lower() for basis in criteria.reward_basis] if criteria else [],
            "nl_assertions": list((criteria.nl_assertions if criteria else None) or []),
            "initial": {"database": domain} | ({"state": start} if start else {}),
            "official_splits": [name for name, ids in splits.items() if task.id in ids],
            "user_tools": named,
        }

    def open(self, episode: int, domain: str, split: str, task: Any) -> None:
        """A fresh world for one episode."""
        found = self.all_tasks(domain)[str(task)]
        self.episodes[episode] = {"domain": domain, "task": found, "env": self.fresh(domain, found)}

    def fresh(self, domain: str, task: Any) -> Any:
        env = self.made(domain, task)
        start = task.initial_state
        env.set_state(
            initialization_data=start.initialization_data if start else None,
            initialization_actions=start.initialization_actions if start else None,
            message_history=(start.message_history if start else None) or [],
        )
        return env

    def call(self, episode: int, name: str, arguments: dict[str, Any], requestor: str) -> dict[str, Any]:
        """Execute a tool as the benchmark's environment does."""
        env = self.episodes[episode]["env"]
        requestor = "user" if requestor == "user" else "assistant"
        watch = is_write(env, name, requestor)
        before = state(env) if watch else ""
        answer = env.get_response(self.tool_call("call", name, arguments, requestor))
        changed = watch and state(env) != before
        writes = [{"entity": "database", "id": "", "owner": ""}] if changed else []
        return {"text": answer.content, "ok": not answer.error, "writes": writes}

    def state(self, episode: int) -> str:
        """Equal for equal states."""
        return state(self.episodes[episode]["env"])

    def reward(self, episode: int, messages: list[dict[str, Any]], outputs: bool) -> dict[str, Any]:
        """The benchmark's own reward of what was said and done."""
        held = self.episodes[episode]
        graded = self.grade(held["domain"], held["task"].id, messages, "user_stop", outputs)
        key = (held["domain"], str(held["task"].id))
        if key not in self.ends:
            self.replay(*key)
        initial, gold, _ = self.ends[key]
        return graded | {"state": {"initial": initial, "final": state(held["env"]), "gold": gold}}

    def replay(self, domain: str, task: Any) -> list[int]:
        """(initial state, state after the gold calls, places of those that changed something), kept."""
        found = self.all_tasks(domain)[task]
        env = self.fresh(domain, found)
        initial = before = state(env)
        writes = []
        for number, action in enumerate((found.evaluation_criteria.actions or []) if found.evaluation_criteria else []):
            env.get_response(self.tool_call("gold", action.name, action.arguments, action.requestor))
            if is_write(env, action.name, action.requestor):
                after = state(env)
                writes += [number] if after != before else []
                before = after
        self.ends[domain, task] = (initial, before, writes)
        return writes

    def grade(
        self,
        domain: str,
        task: Any,
        messages: list[dict[str, Any]],
        termination: str,
        outputs: bool = True,
        record: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`evaluate_simulation` of a message list in the benchmark's own form; of another version of the task where its
        `record` is given."""
        task = self.version(domain, task, record)
        bases = list(task.evaluation_criteria.reward_basis) if task.evaluation_criteria else []
        left = [b for b in bases if b.value != "NL_ASSERTION" and (outputs or b.value != "COMMUNICATE")]
        criteria = task.evaluation_criteria
        judged = task.model_copy(
            update={"evaluation_criteria": criteria.model_copy(update={"reward_basis": left}) if criteria else None}
        )
        run = self.simulation.SimulationRun(
            id="run",
            task_id=task.id,
            start_time=WHEN,
            end_time=WHEN,
            duration=0.0,
            termination_reason=termination,
            messages=[self.message(message) for message in messages],
        )
        found = self.evaluator.evaluate_simulation(
            simulation=run,
            task=judged,
            evaluation_type=self.evaluator.EvaluationType.ALL,
            solo_mode=False,
            domain=domain,
            **({"env_kwargs": options} if (options := self.options(domain, task)) else {}),
        )
        breakdown = {key.value.lower(): value == 1.0 for key, value in (found.reward_breakdown or {}).items()}
        return {
            "reward": found.reward,
            "detail": {
                "bases": {b.value.lower(): breakdown.get(b.value.lower()) for b in bases if outputs or b in left},
                "unjudged": sorted(b.value.lower() for b in bases if b.value == "NL_ASSERTION"),
            },
        }

    def answers(
        self, domain: str, task: Any, messages: list[dict[str, Any]], record: dict[str, Any] | None = None
    ) -> list[str]:
        """What the benchmark's environment answers to the calls in a message list, in order."""
        env = self.fresh(domain, self.version(domain, task, record))
        calls = [call for message in messages for call in message.get("tool_calls") or ()]
        return [
            env.get_response(self.tool_call(c["id"], c["name"], c["arguments"], c["requestor"])).content for c in calls
        ]

    def version(self, domain: str, task: Any, record: dict[str, Any] | None) -> Any:
        """The task, or another version of it as its record has it."""
        known = self.all_tasks(domain)[str(task)]
        return type(known).model_validate(record) if record else known

    def message(self, raw: dict[str, Any]) -> Any:
        kinds = {
            "assistant": self.messages.AssistantMessage,
            "user": self.messages.UserMessage,
            "tool": self.messages.ToolMessage,
        }
        return kinds[raw["role"]].model_validate(raw)

    def accepts(self, path: str) -> dict[str, Any]:
        """Load a results file as the benchmark's own command does; what it holds."""
        results = self.simulation.Results.load(Path(path))
        metrics = importlib.import_module("tau2.metrics.agent_metrics").compute_metrics(results)
        return {
            "simulations": len(results.simulations),
            "tasks": len(results.tasks),
            "average_reward": float(metrics.avg_reward),
            "pass_hat_ks": {str(k): float(v) for k, v in metrics.pass_hat_ks.items()},
        }

    def drop(self, episode: int) -> None:
        """Forget an episode."""
        self.episodes.pop(episode, None)

    def tool_call(self, call_id: str, name: str, arguments: dict[str, Any], requestor: str) -> Any:
        return self.messages.ToolCall(id=call_id, name=name, arguments=arguments, requestor=requestor)


def described(tool: Any, toolkit: Any, domain: str) -> dict[str, Any]:
    function = tool.openai_schema["function"]
    klass = "write" if changes(toolkit, tool.name) else toolkit.tool_type(tool.name).value
    return {**function, "class": klass, "whole_numbers": domain in RETRIEVAL}


def is_write(env: Any, name: str, requestor: str) -> bool:
    toolkit = env.user_tools if requestor == "user" else env.tools
    return toolkit is not None and toolkit.has_tool(name) and changes(toolkit, name)


def changes(toolkit: Any, name: str) -> bool:
    """Whether a tool is marked as one that changes something; older revisions know only the type."""
    marked = getattr(toolkit, "tool_mutates_state", lambda _: False)
    return toolkit.tool_type(name).value == "write" or bool(marked(name))


def state(env: Any) -> str:
    text = f"{env.get_db_hash()} {env.get_user_db_hash()}"
    return hashlib.sha256(text.encode()).hexdigest()
