"""TAU2's data and tools as the `inspect-evals` package ships them, read at run time.

One `Domain` row says where a domain's files and toolkit lie and what its tools may do; `Package` opens it. A toolkit's
methods are used as they are, on a database view of ours: they are plain functions of `self.db`, so they are bound to a
light object instead of the package's store model, which would parse the database anew for each episode.
"""

from __future__ import annotations

import gzip
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.calculator import calculate
from muarl_cli.benchmarks.shared_db import Base, View
from muarl_cli.conversation.events import ToolClass
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest

INSTALL = "pip install 'inspect-evals>=0.26'"
UPSTREAM = "sierra-research/tau2-bench@377cecff"
"""the revision of the benchmark that the package ships for these domains; scores of other revisions differ"""


@dataclass(frozen=True)
class Domain:
    """Where a domain lies in the package, and the class of each tool that is more than a read."""

    name: str
    toolkit: str
    """module and class, "module:Class", below `inspect_evals.tau2`"""
    database: str
    """module and class of the pydantic database"""
    tools: str
    """module and name of the list of the agent's tools"""
    writes: frozenset[str]
    generic: frozenset[str] = frozenset({"calculate"})
    handover: str = "transfer_to_human_agents"
    """generic as well: here an episode ends by the user's transfer token, which answers the agent's words"""

    def class_of(self, tool: str) -> ToolClass:
        if tool in self.writes:
            return ToolClass.WRITE
        return ToolClass.GENERIC if tool in self.generic or tool == self.handover else ToolClass.READ


DOMAINS: Mapping[str, Domain] = {
    "retail": Domain(
        name="retail",
        toolkit="retail.RetailAgentTools:RetailAgentTools",
        database="retail.data_model:RetailDB",
        tools="retail.tools:all_retail_tools",
        writes=frozenset(
            {
                "cancel_pending_order",
                "exchange_delivered_order_items",
                "modify_pending_order_address",
                "modify_pending_order_items",
                "modify_pending_order_payment",
                "modify_user_address",
                "return_delivered_order_items",
            }
        ),
    )
}


class Package:
    """One domain of the installed package: data, tool definitions, and a function that executes a call on a view."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._folder = _data_folder()

    @cached_property
    def revision(self) -> dict[str, str]:
        """What has to stand beside every score: package version, upstream commit, hash of the task file."""
        return {
            "package": f"inspect-evals {metadata.version('inspect-evals')}",
            "upstream": UPSTREAM,
            "tasks": digest(self.records, 16),
        }

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The task records as the package's JSON has them."""
        return list(self._json("tasks.json"))

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Split name to task ids, in the package's order."""
        return dict(self._json("split_tasks.json"))

    @cached_property
    def policy(self) -> str:
        return (self._domain_folder / "policy.txt").read_text(encoding="utf-8")

    @cached_property
    def guidelines(self) -> str:
        """How the benchmark tells a model to play its user."""
        return (self._folder / "user_simulator" / "simulation_guidelines.txt").read_text(encoding="utf-8")

    @cached_property
    def base(self) -> Base:
        """The parsed database, shared by all episodes."""
        return Base(_member(self.domain.database), self._json("db.json"))

    @cached_property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The agent's tools with their full JSON Schemas."""
        tool_def = _member("inspect_ai.tool:ToolDef", within="")
        specs = []
        for make in _member(self.domain.tools):
            tool = tool_def(make())
            schema = json.loads(tool.parameters.model_dump_json(exclude_none=True))
            specs.append(ToolSpec(tool.name, tool.description, schema, self.domain.class_of(tool.name)))
        return tuple(specs)

    @cached_property
    def tool_error(self) -> type[Exception]:
        """What the toolkit raises to refuse a call."""
        error: type[Exception] = _member("inspect_ai.tool:ToolError", within="")
        return error

    def scenario_text(self, record: Mapping[str, Any]) -> str:
        """What the user of a task is told, in the benchmark's own layout."""
        return str(_member("data_model.tasks:Task").model_validate(record).user_scenario)

    def executor(self, view: View) -> Callable[[str, Mapping[str, Any]], str]:
        """A function (tool name, arguments) -> answer text that works on `view`; it raises what the tool raises."""
        toolkit = self._light_toolkit()
        toolkit.db = view

        def execute(name: str, arguments: Mapping[str, Any]) -> str:
            if name in self.domain.generic:
                return calculate(**arguments)
            if name == self.domain.handover:
                return "Transfer successful"
            answer = getattr(toolkit, name)(**arguments)
            return answer if isinstance(answer, str) else json.dumps(answer)

        return execute

    @cached_property
    def _light_toolkit(self) -> type[Any]:
        official = _member(self.domain.toolkit)
        functions: dict[str, Any] = {}
        for base in reversed(official.__mro__):
            if base.__module__.startswith("inspect_evals."):
                functions |= {k: f for k, f in vars(base).items() if inspect.isfunction(f) and not k.startswith("__")}
        return type(f"{official.__name__}OnView", (), functions)

    @property
    def _domain_folder(self) -> Path:
        return self._folder / "domains" / self.domain.name

    def _json(self, name: str) -> Any:
        plain, packed = self._domain_folder / name, self._domain_folder / f"{name}.gz"
        if plain.exists():
            return json.loads(plain.read_text(encoding="utf-8"))
        if packed.exists():
            with gzip.open(packed, "rt", encoding="utf-8") as file:
                return json.load(file)
        raise _unusable(f"it has no {self.domain.name}/{name}")


def _data_folder() -> Path:
    folder: Path = _member("utils:TAU2_DATA_DIR")
    return folder


def _member(path: str, within: str = "inspect_evals.tau2.") -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(within + module), name)
    except ModuleNotFoundError as error:
        raise MuarlError(
            "TAU2 needs the inspect-evals package, which is not installed",
            why=str(error),
            next_step=INSTALL,
            code=ExitCode.MISSING_INPUT,
        ) from error
    except AttributeError as error:
        raise _unusable(f"{within}{module} has no {name}") from error


def _unusable(why: str) -> MuarlError:
    return MuarlError(
        "the installed inspect-evals package is not laid out as expected",
        why=why,
        next_step=INSTALL,
        code=ExitCode.MISSING_INPUT,
    )
