"""TAU2's data and tools as the `inspect-evals` package ships them, read at run time.

`Package` opens one domain: tasks, splits, policy, the parties' tool definitions, and rooms to play in. Invariant: what
the package holds is read once and never changed; an absent or unknown package is an error that says how to get it.
"""

from __future__ import annotations

import gzip
import importlib
import json
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from muarl_cli.benchmarks.plain_db import RecordsBase
from muarl_cli.benchmarks.shared_db import Base
from muarl_cli.benchmarks.tau2_domains import Domain, Side
from muarl_cli.benchmarks.tau2_toolkit import Room, common_room, dual_room, shared_room
from muarl_cli.conversation.tools import Toolbox, ToolSpec
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest

INSTALL = "pip install 'inspect-evals>=0.26'"
SPLITS = "split_tasks.json"
WHOLE = "base"
"""the leaderboard's split, which is all there is where a domain has no file of splits"""
_INCLUDED = re.compile(r"\{\{component:(\w+)\}\}")


class Package:
    """One domain of the installed package."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._folder = _data_folder()

    @cached_property
    def revision(self) -> dict[str, str]:
        """What has to stand beside every score: package version, upstream commit, hash of the task file, and how the
        agent gets at a knowledge base where there is one."""
        found = {
            "package": f"inspect-evals {metadata.version('inspect-evals')}",
            "upstream": self.domain.revision,
            "tasks": digest(self.records, 16),
        }
        return found | ({"retrieval": self.domain.retrieval} if self.domain.retrieval else {})

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The task records as the package's JSON has them."""
        return list(self._data("tasks.json"))

    @cached_property
    def splits(self) -> dict[str, list[str]]:
        """Split name to task ids, in the package's order."""
        if not (self._domain_folder / SPLITS).exists():
            return {WHOLE: [str(record["id"]) for record in self.records]}
        return dict(self._data(SPLITS))

    @cached_property
    def policy(self) -> str:
        """The agent's policy; a tag stands around each text where there are several."""
        texts = [(tag, self._text(name)) for tag, name in self.domain.policy]
        return "\n".join(f"<{tag}>\n{text}\n</{tag}>" if tag else text for tag, text in texts)

    def guidelines(self, tools: bool) -> str:
        """How the benchmark tells a model to play its user, with or without tools of the user's own."""
        name = "simulation_guidelines_tools.txt" if tools else "simulation_guidelines.txt"
        return (self._folder / "user_simulator" / name).read_text(encoding="utf-8")

    @cached_property
    def database(self) -> str:
        """Names the database that every task starts from, before its own initial state."""
        if self.domain.user is None:
            return f"{self.base.hash:064x}"[:16]
        return digest([repr(self._raw[side.data]) for side in self._sides])

    @cached_property
    def base(self) -> Base:
        """The parsed database, shared by all episodes (domains in which the agent alone acts)."""
        side = self.domain.agent
        return Base(_member(side.database), self._data(side.data))

    @cached_property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The agent's tools with their full JSON Schemas."""
        return self._specs(self.domain.agent)

    @cached_property
    def user_tools(self) -> tuple[ToolSpec, ...]:
        """The user's own tools; none in most domains."""
        return self._specs(self.domain.user) if self.domain.user else ()

    @cached_property
    def toolboxes(self) -> dict[str, Toolbox]:
        """The parties' tools by name."""
        return {"agent": Toolbox(self.tools), "user": Toolbox(self.user_tools)}

    def room(self) -> Room:
        """A fresh room on the domain's database, before a task's own initial state."""
        domain = self.domain
        if domain.user is None:
            return shared_room(_member(domain.agent.toolkit), self.base)
        if domain.sync:
            agent, user = (
                (_member(side.toolkit), _member(side.database).model_validate(self._raw[side.data]))
                for side in self._sides
            )
            return dual_room((agent, user), _member(domain.sync))
        toolkits = [_member(side.toolkit) for side in self._sides]
        search = {self._searching: self.knowledge.grep} if domain.documents else {}
        return common_room(toolkits, self.records_base.fresh(), search)

    @cached_property
    def records_base(self) -> RecordsBase:
        """The database of plain records that both parties act on."""
        side = self.domain.agent
        return RecordsBase(_member(side.database), self._raw[side.data], self.domain.unseen)

    @cached_property
    def knowledge(self) -> Any:
        """The documents of a domain whose policy is a knowledge base."""
        return _member(self.domain.documents).load(str(self._domain_folder / "documents.json.gz"))

    def scenario_text(self, record: Mapping[str, Any]) -> str:
        """What the user of a task is told, in the benchmark's own layout."""
        return str(_member("data_model.tasks:Task").model_validate(record).user_scenario)

    @property
    def _sides(self) -> tuple[Side, ...]:
        domain = self.domain
        return (domain.agent, domain.user) if domain.user else (domain.agent,)

    @cached_property
    def _raw(self) -> dict[str, Any]:
        return {side.data: self._data(side.data) for side in self._sides}

    @property
    def _domain_folder(self) -> Path:
        return self._folder / "domains" / self.domain.name

    @property
    def _searching(self) -> str:
        return self.tools[-1].name

    def _specs(self, side: Side) -> tuple[ToolSpec, ...]:
        tool_def = _member("inspect_ai.tool:ToolDef", within="")
        makes = [*_member(side.tools), *([_member(side.search)] if side.search else [])]
        specs = []
        for make in makes:
            tool = tool_def(make())
            name = tool.name.removeprefix(side.prefix)
            schema = json.loads(tool.parameters.model_dump_json(exclude_none=True))
            whole = self.domain.whole_numbers
            specs.append(ToolSpec(name, tool.description, schema, side.class_of(name), whole_numbers=whole))
        return tuple(specs)

    def _text(self, name: str) -> str:
        """A text of the domain with the parts that it includes."""
        path = self._domain_folder / name
        if not path.exists():
            raise _unusable(f"it has no {self.domain.name}/{name}")
        text = path.read_text(encoding="utf-8")
        return _INCLUDED.sub(lambda part: self._text(f"prompts/components/{part[1]}.md"), text)

    def _data(self, name: str) -> Any:
        plain, packed = self._domain_folder / name, self._domain_folder / f"{name}.gz"
        if plain.exists():
            text = plain.read_text(encoding="utf-8")
            return tomllib.loads(text) if plain.suffix == ".toml" else json.loads(text)
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
