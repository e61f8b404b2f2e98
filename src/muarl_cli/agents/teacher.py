"""A chat model as a teacher: what it gets wrong is typed, written down, asked for again, and never becomes a turn.

A reply that calls a tool in a way that cannot be carried out, says nothing, is cut off, refuses the work, or writes a
call into its words is a lapse. The turn is then asked for again with a notice behind the conversation that says what
was wrong; after three lapses in a turn the conversation ends as the agent's failure. Invariants: no lapse reaches the
user, the tools or the history; each one is on disk with the reply as it was; a mended turn carries its lapses as tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from muarl_cli.agents.openai_chat import ChatSession, OpenAIAgents
from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import AgentLimit, AgentTurn, Stage, Usage
from muarl_cli.conversation.tools import Toolbox, ToolCall, parse_arguments
from muarl_cli.engines.chat import Finish, Reply

TRIES = 3
"""replies to one turn before the conversation is given up"""
TAG = "teacher:"
_REFUSES = re.compile(
    r"\bas an? (?:ai|artificial intelligence|large language model|language model)\b|\bi(?:'m| am) an ai\b"
    r"|\bi(?:'m| am) sorry, but i (?:can ?not|can't|won't|am unable to) (?:assist|help|comply|continue)\b"
    r"|\bi (?:can ?not|can't|won't) (?:assist|help|comply) with (?:that|this)\b"
    r"|\b(?:against|violates?) (?:my|our|openai'?s?|the) (?:guidelines|usage polic)",
    re.I,
)
_WRITTEN_CALL = re.compile(r"</?tool_(?:call|response)>|<function|\{\s*\"(?:name|tool|function)\"\s*:|<\|\w+\|>", re.I)


class Lapse(StrEnum):
    """What was wrong with a reply, and what the teacher is told about it."""

    MALFORMED = "malformed"
    EMPTY = "empty"
    CUT = "cut"
    REFUSAL = "refusal"
    WRITTEN_CALL = "written_call"


ADVICE = {
    Lapse.MALFORMED: "Your last tool call could not be carried out: {why}. Make it again, as the tool's schema asks.",
    Lapse.EMPTY: "Your last reply was empty. Go on: call a tool, or say something to the customer.",
    Lapse.CUT: "Your last reply was too long and was cut off. Say it in a few sentences.",
    Lapse.REFUSAL: "This is ordinary service work under the policy above. Go on with it, as the service agent, in "
    "words the customer understands; if the policy does not allow something, tell the customer so.",
    Lapse.WRITTEN_CALL: "Your last reply had a tool call in its words. Use the tool interface for calls, or speak to "
    "the customer without one.",
}


class Teachers(OpenAIAgents):
    """Opens teacher sessions on a chat model. `record` is given each lapse, before it is asked for again."""

    def __init__(self, chat: Any, *, record: Callable[[Mapping[str, Any]], None], **options: Any) -> None:
        super().__init__(chat, **options)
        self._record = record

    def open(self, stage: Stage, task: Any) -> TeacherSession:
        return TeacherSession(self.chat, stage, self._sampling, self._record, str(getattr(task, "id", "")))


class TeacherSession(ChatSession):
    """The teacher in one episode."""

    def __init__(
        self, chat: Any, stage: Stage, sampling: Any, record: Callable[[Mapping[str, Any]], None], task: str
    ) -> None:
        super().__init__(chat, stage, sampling)
        self._record, self._task = record, task
        self._toolbox = Toolbox(stage.tools)

    async def act(self, news: Sequence[Event]) -> AgentTurn:
        for event in news:
            self._take(event)
        usage, notice = Usage(), ""
        tags: list[str] = []
        for attempt in range(TRIES):
            reply = await self._reply(attempt, notice)
            usage += reply.usage
            found = lapse_of(reply, self._toolbox)
            if found is None:
                return replace(self._keep(reply), usage=usage, tags=tuple(dict.fromkeys(tags)))
            lapse, why = found
            self._write_down(attempt, lapse, why, reply)
            tags.append(TAG + lapse.value)
            notice = f"[notice] {ADVICE[lapse].format(why=why)}"
        raise AgentLimit(f"{TAG} {TRIES} lapses in a turn, the last one: {lapse.value}")

    def _write_down(self, attempt: int, lapse: Lapse, why: str, reply: Reply) -> None:
        self._record(
            {
                "scenario": self._stage.scenario,
                "task_id": self._task,
                "seed": self._stage.seed,
                "turn": self._turns,
                "attempt": attempt,
                "lapse": lapse.value,
                "why": why,
                "text": reply.text[:8000],
                "calls": [[call.name[:200], call.arguments[:8000]] for call in reply.calls],
            }
        )


def lapse_of(reply: Reply, toolbox: Toolbox) -> tuple[Lapse, str] | None:
    """(what is wrong with a reply of a teacher, details), None where it may be taken."""
    if reply.finish is Finish.FILTERED:
        return Lapse.REFUSAL, "refused or filtered"
    if reply.finish is Finish.LENGTH:
        return Lapse.CUT, "cut at the token limit"
    for raw in reply.calls:
        arguments, problem = parse_arguments(raw.arguments)
        if why := toolbox.problem(ToolCall("", raw.name, arguments, problem if raw.name else "the call names no tool")):
            return Lapse.MALFORMED, why[:400]
    if not reply.text.strip() and not reply.calls:
        return Lapse.EMPTY, "no words and no call"
    if found := _WRITTEN_CALL.search(reply.text):
        return Lapse.WRITTEN_CALL, found.group()[:60]
    if found := _REFUSES.search(reply.text):
        return Lapse.REFUSAL, found.group()[:100]
    return None
