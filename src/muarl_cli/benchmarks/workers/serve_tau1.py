"""TAU1's own environments (`tau_bench`, from a checkout), served: its tools change its data, its code computes rewards.

Each episode gets its own copy-on-write view of the data: a record is copied when it is looked up by key. The reward is
`Env.calculate_reward` as it stands, with one thing replaced: the hash of the whole database, which takes tenths of a
second, by one of the records that differ from the initial ones, under the benchmark's own notion of equality.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = {"retail": ("train", "test", "dev"), "airline": ("test",)}
ENVS = {
    "retail": "tau_bench.envs.retail.env:MockRetailDomainEnv",
    "airline": "tau_bench.envs.airline.env:MockAirlineDomainEnv",
}
RESPOND = "respond"


class Table(dict[str, Any]):
    """One table of an episode: the shared records, and private copies of those that were looked up."""

    def __init__(self, shared: dict[str, Any]) -> None:
        super().__init__(shared)
        self.shared = shared
        self.own: set[str] = set()

    def __getitem__(self, key: Any) -> Any:
        if key not in self.own and key in self:
            super().__setitem__(key, copy.deepcopy(super().__getitem__(key)))
            self.own.add(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.own.add(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.own.add(key)
        super().__delitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        self.own.add(key)
        return super().pop(key, *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]


class Host:
    """The verbs."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.envs: dict[tuple[str, str], Any] = {}
        self.shared: dict[str, Any] = {}
        self.episodes: dict[int, dict[str, Any]] = {}

    def hello(self) -> dict[str, Any]:
        """Make ready; what is served."""
        if not (self.root / "tau_bench" / "envs").is_dir():
            raise FileNotFoundError(f"{self.root} holds no tau_bench/envs")
        if importlib.util.find_spec("litellm") is None:  # it is only for the benchmark's own user models
            stub = types.ModuleType("litellm")
            stub.completion = None  # type: ignore[attr-defined]
            sys.modules["litellm"] = stub
        sys.path.insert(0, str(self.root))
        self.base = importlib.import_module("tau_bench.envs.base")
        self.user = importlib.import_module("tau_bench.envs.user")
        self.types = importlib.import_module("tau_bench.types")
        return {"domains": sorted(SPLITS)}

    def spec(self, domain: str) -> dict[str, Any]:
        """What both sides are told, and the tools."""
        env = self.env(domain, SPLITS[domain][-1])
        tools = [info["function"] for info in env.tools_info]
        return {
            "policy": env.wiki,
            "greeting": "Hi! How can I help you today?",
            "guidelines": self.user.LLMUserSimulationEnv.build_system_prompt(None, None),
            "tools": tools,
            "terminal": list(env.terminate_tools),
            "splits": list(SPLITS[domain]),
        }

    def tasks(self, domain: str, split: str) -> list[dict[str, Any]]:
        """All tasks of a split, gold calls that change nothing marked."""
        found = []
        for index, task in enumerate(self.env(domain, split).tasks):
            gold = [{"name": a.name, "arguments": a.kwargs} for a in task.actions if a.name != RESPOND]
            room = self.fresh(domain)
            writes = [n for n, action in enumerate(gold) if self.changes(domain, split, room, action)]
            found.append(
                {
                    "id": str(index),
                    "brief": {"instruction": task.instruction, "user_id": task.user_id},
                    "prompt": self.user.LLMUserSimulationEnv.build_system_prompt(None, task.instruction),
                    "gold": gold,
                    "writes": writes,
                    "communicate": list(task.outputs),
                    "bases": ["db", "communicate"],
                    "initial": {"database": domain},
                }
            )
        return found

    def open(self, episode: int, domain: str, split: str, task: Any) -> None:
        """A fresh world for one episode."""
        self.episodes[episode] = {"domain": domain, "split": split, "task": int(task), "data": self.fresh(domain)}

    def call(self, episode: int, name: str, arguments: dict[str, Any], requestor: str) -> dict[str, Any]:
        """Execute a tool; whatever it raises is an observation, as in the benchmark's own `step`."""
        held = self.episodes[episode]
        tool = self.env(held["domain"], held["split"]).tools_map[name]
        before = changes(held["data"])
        try:
            text = str(tool.invoke(data=held["data"], **arguments))
        except Exception as error:
            text = f"Error: {error}"
        after = changes(held["data"])
        places = [place for place in after.keys() | before.keys() if after.get(place) != before.get(place)]
        return {"text": text, "ok": not text.startswith("Error"), "writes": [written(held["data"], *p) for p in places]}

    def state(self, episode: int) -> str:
        """Equal for equal states."""
        return self.fingerprint(self.episodes[episode]["data"])

    def reward(self, episode: int, messages: list[dict[str, Any]], outputs: bool) -> dict[str, Any]:
        """The benchmark's own reward of what was said and done. Without `outputs`, what must be said does not count."""
        held = self.episodes[episode]
        env = self.env(held["domain"], held["split"])
        task = env.tasks[held["task"]]
        env.task = task if outputs else task.model_copy(update={"outputs": []})
        env.actions = [self.action(*act) for message in messages for act in acts(message)]
        env.data = held["data"]
        final = self.fingerprint(env.data)
        result = env.calculate_reward()
        gold = self.fingerprint(env.data)  # the benchmark leaves the gold data there
        said = getattr(result.info, "outputs", {})
        return {
            "reward": result.reward,
            "state": {"initial": self.fingerprint(self.fresh(held["domain"])), "final": final, "gold": gold},
            "detail": {
                "bases": {"db": final == gold} | ({"communicate": all(said.values())} if outputs else {}),
                "missing": sorted(text for text, found in said.items() if not found),
            },
        }

    def drop(self, episode: int) -> None:
        """Forget an episode."""
        self.episodes.pop(episode, None)

    def unchanged(self, domain: str) -> bool:
        """Whether the shared data are still those of the files: no episode wrote through its view."""
        self.env(domain, SPLITS[domain][-1])
        loaded = importlib.import_module(f"tau_bench.envs.{domain}.data").load_data()
        return loaded == self.shared[domain]

    def official_hash(self, episode: int) -> str:
        """The benchmark's own hash of the whole database."""
        held = self.episodes[episode]
        plain = {name: dict(table) for name, table in held["data"].items()}
        return self.base.consistent_hash(self.base.to_hashable(plain))

    def env(self, domain: str, split: str) -> Any:
        """The benchmark's environment of a split; made once."""
        key = (domain, split)
        if key not in self.envs:
            module, _, name = ENVS[domain].partition(":")
            made = getattr(importlib.import_module(module), name)
            env = made(user_strategy=self.user.UserStrategy.HUMAN, task_split=split, task_index=0)
            self.shared.setdefault(domain, env.data)
            env.data_load_func = lambda: self.fresh(domain)
            env.get_data_hash = lambda: self.fingerprint(env.data)
            self.envs[key] = env
        return self.envs[key]

    def fresh(self, domain: str) -> Any:
        return {name: Table(records) for name, records in self.shared[domain].items()}

    def fingerprint(self, data: dict[str, Table]) -> str:
        return self.base.consistent_hash(self.base.to_hashable([[*k, v] for k, v in sorted(changes(data).items())]))

    def action(self, name: str, kwargs: dict[str, Any]) -> Any:
        return self.types.Action(name=name, kwargs=kwargs)

    def changes(self, domain: str, split: str, room: dict[str, Table], action: dict[str, Any]) -> Any:
        before = changes(room)
        with contextlib.suppress(Exception):  # a gold call that fails is part of gold
            self.env(domain, split).tools_map[action["name"]].invoke(data=room, **action["arguments"])
        return changes(room) != before


def changes(data: dict[str, Table]) -> Any:
    """{(table, key): record as text} of all records that differ from the shared ones; text, as the benchmark hashes
    texts: to it 25 and 25.0 differ."""
    found: dict[tuple[str, str], str] = {}
    for name, table in data.items():
        for key in table.own:
            now = ordered(dict.get(table, key))
            if now != ordered(table.shared.get(key)):
                found[name, str(key)] = now
    return found


def ordered(value: Any) -> str:
    """A record as text in which the order of keys does not matter."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {ordered(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(ordered(item) for item in value) + "]"
    return repr(value)


def written(data: dict[str, Table], table: str, key: Any) -> dict[str, str]:
    record = dict.get(data[table], key) or {}
    owner = record.get("user_id", key if table == "users" else "") if isinstance(record, dict) else ""
    return {"entity": table, "id": key, "owner": str(owner)}


def acts(message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A message of the agent as the benchmark's actions."""
    if message["role"] != "assistant":
        return
    for call in message.get("tool_calls") or ():
        yield call["name"], call["arguments"]
    if message.get("content"):
        yield RESPOND, {"content": message["content"]}
