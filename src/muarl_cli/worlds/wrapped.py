"""A world that stands before another one: it has the other's tools and state, and changes how calls are answered.

Invariant: what is not about answering a call is the inner world's, so the end state is that of the inner one.
"""

from __future__ import annotations

from muarl_cli.conversation.protocols import World
from muarl_cli.conversation.tools import ToolSpec


class WrappedWorld:
    """Base of the worlds before another one; `call` is the subclass's own."""

    def __init__(self, inner: World) -> None:
        self.inner = inner

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self.inner.tools

    @property
    def user_tools(self) -> tuple[ToolSpec, ...]:
        return self.inner.user_tools

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def close(self) -> None:
        self.inner.close()
