"""The package's toolkits on databases of ours: the official functions, bound to light objects.

A toolkit in the package is a store model that parses its database when it is made. Its methods are plain functions of
`self.db` and a few fields, so they are bound to an object that has just those. Invariants: each episode has its own
object (upstream's phone shares one default VPN among all), and nothing in an answer is drawn at random: where a tool
makes up an id, it counts instead.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

from muarl_cli.benchmarks.calculator import calculate
from muarl_cli.benchmarks.own_db import OwnDB
from muarl_cli.benchmarks.plain_db import PlainDB
from muarl_cli.benchmarks.shared_db import Base, View
from muarl_cli.benchmarks.tau2_domains import CALCULATE, HANDOVER

_OF_THE_STORE = frozenset({"store", "instance", "db", "initialized"})
BESIDE: Mapping[str, Callable[..., str]] = {CALCULATE: calculate, HANDOVER: lambda **_: "Transfer successful"}
"""the tools of the paper's domains that are no methods of their toolkits"""


class Room:
    """What one episode works on: the parties' toolkits, and the state behind them."""

    def __init__(
        self,
        state: View | OwnDB,
        agent: Any,
        user: Any = None,
        sync: Callable[[], None] | None = None,
        beside: Mapping[str, Callable[..., str]] | None = None,
    ) -> None:
        """`beside` are tools of the agent that are no methods of its toolkit."""
        self.state, self._sides = state, {"agent": agent, "user": user}
        self._sync = sync or (lambda: None)
        self._beside = BESIDE if beside is None else beside

    def put(self, records: Mapping[str, Any]) -> None:
        """Put a task's own records into the database. Raises `TypeError` where the domain's tasks bring none."""
        if records and not isinstance(self.state, PlainDB):
            raise TypeError(f"a task brings records of its own to a {type(self.state).__name__}")
        if isinstance(self.state, PlainDB):
            self.state.merge(records)

    def settle(self) -> None:
        """What is there now is the initial state (a shared database has its own)."""
        if isinstance(self.state, OwnDB):
            self.state.settle()

    def call(self, requestor: str, name: str, arguments: Mapping[str, Any]) -> str:
        """Execute a tool and bring both sides into line; the answer as the benchmark words it. Raises what the tool
        raises."""
        if requestor == "agent" and name in self._beside:
            return self._beside[name](**arguments)
        return answer_text(self.function(requestor, name, arguments))

    def function(self, requestor: str, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call any function of a side, as a task's initial state and assertions do."""
        answer = getattr(self._sides[requestor], name)(**arguments)
        self._sync()
        return answer


def shared_room(toolkit: Any, base: Base) -> Room:
    """A room on a private view of a shared database."""
    view = View(base)
    return Room(view, bound(toolkit, view))


def dual_room(sides: tuple[tuple[Any, Any], tuple[Any, Any]], environment: Any) -> Room:
    """A room in which agent and user have (toolkit, database) of their own; `environment` is the package's class that
    keeps them in line."""
    agent, user = (bound(toolkit, db) for toolkit, db in sides)
    pair = SimpleNamespace(tools=agent, user_tools=user)
    return Room(OwnDB(*(db for _, db in sides)), agent, user, MethodType(environment.sync_tools, pair))


def common_room(toolkits: Sequence[Any], state: PlainDB, beside: Mapping[str, Callable[..., str]]) -> Room:
    """A room in which agent and user have toolkits of their own on one database."""
    agent, user = (bound(toolkit, state.db) for toolkit in toolkits)
    return Room(state, agent, user, beside=beside)


def bound(official: Any, db: Any) -> Any:
    """The official toolkit's functions on `db`."""
    toolkit = _light(official)()
    toolkit.db = db
    for name, default in _defaults(official).items():
        setattr(toolkit, name, copy.deepcopy(default))
    for function in _inventive(official):
        counted = {**function.__globals__, "uuid": _Counter()}
        setattr(toolkit, function.__name__, MethodType(FunctionType(function.__code__, counted), toolkit))
    return toolkit


def answer_text(answer: Any) -> str:
    """A tool's answer as upstream's environment words it: JSON, in which numbers of plain objects are texts while
    those of records stay numbers."""
    return answer if isinstance(answer, str) else json.dumps(_plain(answer), default=str)


def _plain(answer: Any) -> Any:
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, (bool, int, float)):
        return str(answer)
    if isinstance(answer, Mapping):
        return {key: _plain(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [_plain(value) for value in answer]
    return answer.isoformat() if isinstance(answer, date) else answer.model_dump()


class _Counter:
    """Stands where the `uuid` module is asked for an id: eight hex digits that count up."""

    def __init__(self) -> None:
        self._made = 0

    def uuid4(self) -> SimpleNamespace:
        self._made += 1
        return SimpleNamespace(hex=f"{self._made:08x}")


@lru_cache(maxsize=16)
def _light(official: Any) -> type[Any]:
    members: dict[str, Any] = {}
    for base in reversed(official.__mro__):
        if base.__module__.startswith("inspect_evals."):
            own = {k: m for k, m in vars(base).items() if inspect.isfunction(m) or isinstance(m, property)}
            members |= {name: member for name, member in own.items() if not name.startswith("__")}
    return type(f"{official.__name__}OnView", (), members)


@lru_cache(maxsize=16)
def _defaults(official: Any) -> dict[str, Any]:
    fields = {name: field for name, field in official.model_fields.items() if name not in _OF_THE_STORE}
    return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}


@lru_cache(maxsize=16)
def _inventive(official: Any) -> tuple[FunctionType, ...]:
    members = vars(_light(official)).values()
    return tuple(m for m in members if isinstance(m, FunctionType) and "uuid" in m.__code__.co_names)
