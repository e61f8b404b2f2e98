"""Small episodes and event lists for the tests of scoring and reports."""

from __future__ import annotations

from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import SCHEMA, End, Episode, Key, StateHashes
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass


class Talk:
    """Builds an event list by saying what happened, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, actor: Actor, kind: Kind, text: str = "", call: CallRecord | None = None, *tags: str) -> Talk:
        self.events.append(Event(len(self.events), actor, kind, text, call, tags))
        return self

    def agent(self, text: str, *tags: str) -> Talk:
        return self.add(Actor.AGENT, Kind.SAY, text, None, *tags)

    def user(self, text: str) -> Talk:
        return self.add(Actor.USER, Kind.SAY, text)

    def call(
        self,
        name: str,
        klass: ToolClass | None = ToolClass.READ,
        ok: bool = True,
        arguments: dict[str, Any] | None = None,
        actor: Actor = Actor.AGENT,
        text: str = "",
    ) -> Talk:
        """A call and its answer; `text` is the raw text of a call whose arguments could not be parsed."""
        given = None if text else arguments or {}
        self.add(actor, Kind.CALL, text, CallRecord("call_0", name, given, klass))
        answer = CallRecord("call_0", name, None, klass, ok)
        return self.add(Actor.WORLD, Kind.RESULT if ok else Kind.ERROR, "", answer)

    def end(self, reason: EndReason = EndReason.USER_STOP) -> tuple[Event, ...]:
        return tuple(self.add(Actor.RUNNER, Kind.END, reason.value).events)


def make_episode(
    task: str,
    reward: float | None,
    rollout: int = 0,
    reason: EndReason = EndReason.USER_STOP,
    attempt: int = 0,
    tokens: int = 10,
    events: tuple[Event, ...] | None = None,
) -> Episode:
    """An episode of `task`; its validity follows from the end reason."""
    key = Key("run", "eval", 0, "desk", task, f"hash-{task}", "test", rollout, rollout, attempt)
    if events is None:
        events = Talk().user("hello").call("find").agent("done").user("bye").end(reason)
    return Episode(
        schema=SCHEMA,
        **key.identity,
        policy_hash="p",
        agent={"kind": "scripted"},
        user={"backend": "scripted"},
        events=events,
        end=End(reason),
        valid=reason.valid,
        reward=reward if reason.valid else None,
        state=StateHashes(),
        usage={"agent_tokens": tokens},
    )
