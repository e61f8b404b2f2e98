"""One episode's environment: the official toolkits on a private state, behind the `World` protocol.

Both parties act on the same state; each gets the answers to its own calls. Invariant: whatever a tool raises is an
observation for who called it, as upstream has it; what a refused call changed on its way is not undone, and the write
set names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muarl_cli.benchmarks.tau2_package import Package
from muarl_cli.conversation.events import ToolClass, Write
from muarl_cli.conversation.protocols import ToolFault, ToolResult
from muarl_cli.conversation.tools import ToolCall, ToolSpec, typed
from muarl_cli.errors import MuarlError

PARTIES = {"assistant": "agent", "user": "user"}
"""how the benchmark's data names the parties, and how the log does"""


class Tau2World:
    """See the `World` protocol. `initial_state` is a task's own: records that are put in and functions that are called
    before the talk begins. `user_tools` are those that the task's user has; all of the domain's where it is None."""

    def __init__(
        self,
        package: Package,
        initial_state: Mapping[str, Any] | None = None,
        user_tools: tuple[ToolSpec, ...] | None = None,
    ) -> None:
        self._package = package
        self._room = package.room()
        self._known: dict[tuple[str, str], int] = {}
        self.tools: tuple[ToolSpec, ...] = package.tools
        self.user_tools: tuple[ToolSpec, ...] = package.user_tools if user_tools is None else user_tools
        self._sides = package.toolboxes
        start = initial_state or {}
        self._room.put((start.get("initialization_data") or {}).get("agent_data") or {})
        for action in start.get("initialization_actions") or ():
            self._room.function(PARTIES[action["env_type"]], action["func_name"], action["arguments"])
        self._room.settle()

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        """Execute a call; a refusal is an ordinary "Error: ..." answer, as upstream's environment gives it."""
        return self.execute(call.name, call.arguments, requestor)

    def execute(self, name: str, arguments: Mapping[str, Any], requestor: str = "agent") -> ToolResult:
        """The same without a loop."""
        side = self._sides["user" if requestor == "user" and self.user_tools else "agent"]
        try:
            text, ok = self._room.call(requestor, name, typed(arguments, side.get(name))), True
        except (MemoryError, RecursionError) as error:
            raise ToolFault(f"{name}: {type(error).__name__}") from error
        except MuarlError:
            raise
        except Exception as error:  # upstream turns whatever a tool raises into an observation
            text, ok = f"Error: {_message(error)}", False
        spec = side.get(name)
        writes = self._written() if spec and spec.klass is ToolClass.WRITE else ()
        return ToolResult(text, ok, writes)

    def holds(self, assertion: Mapping[str, Any]) -> bool:
        """Whether an assertion of a task about its environment holds now."""
        side = PARTIES[assertion["env_type"]]
        found = self._room.function(side, assertion["func_name"], assertion["arguments"])
        return bool(found == assertion.get("assert_value", True))

    def fingerprint(self) -> str:
        return self._room.state.fingerprint()

    def diff(self) -> list[dict[str, Any]]:
        """What differs from the initial state, a row a record."""
        return self._room.state.diff()

    def close(self) -> None:
        return None

    def _written(self) -> tuple[Write, ...]:
        state = self._room.state
        places = state.changed(self._known)
        if places:
            self._known = state.touched()
        return tuple(Write(table, key, state.owner(table, key)) for table, key in places)


def _message(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)
