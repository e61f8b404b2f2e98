"""The conversation loop: the only one in the project.

Greeting, user, then in turns: the agent either calls tools (run in order, answered by id, unheard by the user) or
speaks to the user, who answers or ends it. Whatever the agent emits, the loop goes on with an error observation; only
repetition, a limit, a terminal tool, a stop or a fault ends an episode. A fault never becomes a reward.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.episode import End
from muarl_cli.conversation.events import Actor, CallRecord, Event, Kind, ToolClass
from muarl_cli.conversation.limits import Limits, Tally
from muarl_cli.conversation.protocols import (
    AgentLimit,
    AgentSession,
    AgentTurn,
    Fault,
    Referee,
    ToolFault,
    ToolResult,
    UserSession,
    UserTurn,
    World,
)
from muarl_cli.conversation.tools import Toolbox, ToolCall
from muarl_cli.hashing import canonical


@dataclass
class Transcript:
    """What a conversation left: its events, its end, and the tally."""

    tally: Tally
    events: list[Event] = field(default_factory=list)
    end: End = field(default_factory=lambda: End(EndReason.INFRA_FAULT, "never ended"))
    seconds: float = 0.0

    def add(
        self,
        actor: Actor,
        kind: Kind,
        text: str = "",
        call: CallRecord | None = None,
        tags: tuple[str, ...] = (),
        thought: str = "",
    ) -> None:
        self.events.append(Event(len(self.events), actor, kind, text, call, tags, thought))


class _Ended(Exception):
    def __init__(self, reason: EndReason, detail: str = "") -> None:
        super().__init__(reason)
        self.end = End(reason, detail)


async def converse(
    agent: AgentSession,
    user: UserSession,
    world: World,
    *,
    greeting: str,
    limits: Limits,
    agent_may_stop: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Transcript:
    """Hold one conversation to its end. Never raises but for cancellation and bugs of the runner itself.

    `on_event` is called with each event as it happens (live displays).
    """
    referee = referee_of(world)
    limits = referee.limits(limits) if referee else limits
    transcript = Transcript(Tally(limits))
    started = time.monotonic()
    talk = _Talk(agent, user, world, transcript, agent_may_stop, on_event)
    try:
        async with asyncio.timeout(limits.max_seconds or None):
            await talk.run(greeting)
    except _Ended as ended:
        transcript.end = ended.end
    except AgentLimit as limit:
        transcript.end = End(EndReason.LIMIT_AGENT, str(limit))
    except Fault as fault:
        transcript.end = End(fault.reason, _one_line(fault))
    except TimeoutError:
        transcript.end = End(EndReason.LIMIT_BUDGET, f"{limits.max_seconds} seconds")
    transcript.seconds = time.monotonic() - started
    transcript.add(Actor.RUNNER, Kind.END, transcript.end.reason.value)
    if on_event:
        on_event(transcript.events[-1])
    return transcript


def referee_of(world: Any) -> Referee | None:
    """The benchmark's referee that a world brings along, through whatever is wrapped around it."""
    found: Referee | None = getattr(world, "referee", None)
    inner = getattr(world, "inner", None)
    return found if found is not None or inner is None else referee_of(inner)


class _Talk:
    """The state of one running conversation: who has heard how much."""

    def __init__(
        self,
        agent: AgentSession,
        user: UserSession,
        world: World,
        transcript: Transcript,
        agent_may_stop: bool,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.agent, self.user, self.world, self.log = agent, user, world, transcript
        self.agent_may_stop, self.on_event = agent_may_stop, on_event
        self.toolbox, self.user_toolbox = Toolbox(world.tools), Toolbox(world.user_tools)
        self.referee = referee_of(world)
        self.heard = {Actor.AGENT: 0, Actor.USER: 0}

    async def run(self, greeting: str) -> None:
        if greeting:
            self._add(Actor.AGENT, Kind.SAY, greeting, tags=("greeting",))
        await self._user_turn()
        while True:
            spoke = await self._agent_turn()
            self._check_limits()
            self._ask_referee()
            if spoke:
                await self._user_turn()
                self._check_limits()
                self._ask_referee()

    async def _agent_turn(self) -> bool:
        """One turn of the agent; True when it spoke to the user (so the user is next)."""
        turn = await self.agent.act(self._news(Actor.AGENT))
        turn = self.referee.reads(turn) if self.referee else turn
        self.heard[Actor.AGENT] = len(self.log.events)
        tally = self.log.tally
        tally.agent_tokens += turn.usage.output_tokens
        tally.prompt_tokens += turn.usage.input_tokens
        tally.cost_usd += turn.usage.cost_usd
        if turn.text or not turn.calls:
            self._say(turn)
        self.heard[Actor.AGENT] = len(self.log.events)
        thought = "" if turn.text else turn.thought
        for place, call in enumerate(turn.calls):
            tags = ("same_turn",) if place else turn.tags
            await self._execute(call, Actor.AGENT, self.toolbox, tags, "" if place else thought)
        if turn.stop:
            if self.agent_may_stop:
                raise _Ended(EndReason.AGENT_STOP)
            self._add(Actor.WORLD, Kind.ERROR, "the conversation is ended by the user, not by the agent")
        return not turn.calls

    def _say(self, turn: AgentTurn) -> None:
        tags = (("beside_calls",) if turn.calls else turn.tags) + (("cut",) if turn.cut else ())
        self._add(Actor.AGENT, Kind.SAY, turn.text, tags=tags, thought=turn.thought)

    async def _user_turn(self) -> None:
        turn = await self._next_user_turn()
        while turn.calls:  # dual control: the user acts on their own device before speaking
            for call in turn.calls:
                await self._execute(call, Actor.USER, self.user_toolbox)
            self._check_limits()
            turn = await self._next_user_turn()
        self._add(Actor.USER, Kind.SAY, turn.text, tags=turn.tags)
        self.log.tally.count_user_turn()
        if turn.end is not None:
            raise _Ended(turn.end)

    async def _next_user_turn(self) -> UserTurn:
        turn = await self.user.respond(self._news(Actor.USER))
        self.heard[Actor.USER] = len(self.log.events)
        self.log.tally.user_tokens += turn.usage.output_tokens
        self.log.tally.cost_usd += turn.usage.cost_usd
        return turn

    async def _execute(
        self, call: ToolCall, actor: Actor, toolbox: Toolbox, tags: tuple[str, ...] = (), thought: str = ""
    ) -> None:
        spec = toolbox.get(call.name)
        klass = spec.klass if spec else None
        arguments = None if call.problem else _clean(call.arguments)
        asked = CallRecord(call.id, call.name[:64], arguments, klass)
        self._add(actor, Kind.CALL, call.raw[:2000] if call.problem else "", asked, tags, thought)
        problem = call.problem if self.referee else toolbox.problem(call)
        result = ToolResult(f"Error: {problem}", ok=False) if problem else await self._call_world(call, actor)
        answer = CallRecord(call.id, asked.name, None, klass, result.ok, result.writes)
        self._add(Actor.WORLD, Kind.RESULT if result.ok else Kind.ERROR, result.text, answer, result.tags)
        if actor is Actor.AGENT:
            self.log.tally.count_call(call.name, arguments, result.ok)
            if result.ok and klass is ToolClass.TERMINAL:
                raise _Ended(EndReason.TRANSFER, call.name)
            self._check_limits()
        else:
            self.log.tally.turns += 1

    async def _call_world(self, call: ToolCall, actor: Actor) -> ToolResult:
        try:
            return await self.world.call(call, actor.value)
        except (Fault, asyncio.CancelledError, TimeoutError):
            raise
        except Exception as error:  # whatever a tool raises is the tool's fault, never the agent's
            raise ToolFault(f"{call.name}: {type(error).__name__}: {error}") from error

    def _check_limits(self) -> None:
        verdict = self.log.tally.verdict()
        if verdict:
            raise _Ended(EndReason.LIMIT_AGENT, verdict)

    def _ask_referee(self) -> None:
        over = self.referee.ended() if self.referee else None
        if over:
            raise _Ended(*over)

    def _news(self, party: Actor) -> list[Event]:
        """Events since this party last spoke, without the other side's private tool traffic and its thoughts."""
        fresh = self.log.events[self.heard[party] :]
        shown = [event for event in fresh if not _private_to_other(event, party, self.log.events)]
        return [replace(event, thought="") if event.thought and party is Actor.USER else event for event in shown]

    def _add(
        self,
        actor: Actor,
        kind: Kind,
        text: str,
        call: CallRecord | None = None,
        tags: tuple[str, ...] = (),
        thought: str = "",
    ) -> None:
        self.log.add(actor, kind, text, call, tags, thought)
        if self.referee:
            self.referee.watch(self.log.events[-1])
        if self.on_event:
            self.on_event(self.log.events[-1])


def _private_to_other(event: Event, party: Actor, events: list[Event]) -> bool:
    """The agent never sees the user's own tool traffic. (User sessions get everything: code that owns the user's state
    may watch what was written; what is *worded* by a model sees only `heard_by_user` events.)"""
    if party is not Actor.AGENT or event.call is None:
        return False
    if event.actor is Actor.USER:
        return True
    if event.actor is Actor.WORLD:
        owner = next(
            (e for e in reversed(events[: event.i]) if e.kind is Kind.CALL and e.call and e.call.id == event.call.id),
            None,
        )
        return owner is not None and owner.actor is Actor.USER
    return False


def _clean(arguments: Any) -> dict[str, Any]:
    """Arguments as they are logged: canonical JSON, so that the log never holds NaN or tuples."""
    try:
        return dict(canonical(dict(arguments)))
    except (TypeError, ValueError, RecursionError):
        return {"unloggable": _shown(arguments)}


def _shown(arguments: Any) -> str:
    try:
        return str(arguments)[:2000]
    except RecursionError:
        return "nested too deeply"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
