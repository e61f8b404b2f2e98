"""A guard at run time: a write that breaks a prerequisite or confirm rule is refused with the reason.

The same rules that judge a log afterwards stand before the world here, fed with the events as they happen. Invariant:
the guard sees nothing that the log does not hold, so what it lets through is what the rules pass, and each refusal is
tagged `guard:RULE`.
"""

from __future__ import annotations

from muarl_cli.conversation.events import Event, ToolClass
from muarl_cli.conversation.protocols import ToolResult, World
from muarl_cli.conversation.tools import ToolCall
from muarl_cli.scoring.confirm import concerns, disagreement
from muarl_cli.scoring.rules import Rule, unread
from muarl_cli.scoring.trace import read
from muarl_cli.worlds.wrapped import WrappedWorld

GUARDS = ("prereq", "confirm")
"""the kinds of rules that can be decided before a write"""


class GuardedWorld(WrappedWorld):
    """A world behind its scenario's rules."""

    def __init__(self, inner: World, rules: tuple[Rule, ...]) -> None:
        super().__init__(inner)
        self.rules = tuple(rule for rule in rules if rule.kind in GUARDS)
        self._events: list[Event] = []
        self._writes = frozenset(tool.name for tool in inner.tools if tool.klass is ToolClass.WRITE)

    def watch(self, event: Event) -> None:
        """Told by the loop's caller of each event as it happens; the call under way is the last one."""
        self._events.append(event)

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        if requestor == "agent" and call.name in self._writes:
            for rule in self.rules:
                if problem := self._problem(rule):
                    text = f"Error: not carried out: {problem}. Rule {rule.id}: {rule.what}."
                    return ToolResult(text, False, (), (f"guard:{rule.id}",))
        return await self.inner.call(call, requestor)

    def _problem(self, rule: Rule) -> str:
        trace = read(self._events)
        step = trace.steps[-1]
        if rule.kind == "prereq":
            return unread(rule, trace, step.at) or ""
        return disagreement(rule, trace, step)[0] if concerns(rule, step) else ""
