"""Tools that a language model plays, as in the paper's pipeline A.

The model is shown one tool's definition, the memory (a small database) and the calls so far, and answers the call; what
a write changes it says as records, which go into the memory where they conform to its schema. Where the tools can be
executed, they are, in its shadow: the end state, and whether the model's answer was right, are known from there.
Invariant: a reply that cannot be read becomes a fault of the tool after three tries, never an answer, and never the
agent's failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from muarl_cli.conversation.events import ToolClass, Write
from muarl_cli.conversation.protocols import ToolFault, ToolResult, World
from muarl_cli.conversation.tools import ToolCall, ToolSpec
from muarl_cli.engines.chat import ChatSampling, Reply
from muarl_cli.engines.wire import ContextOverflow
from muarl_cli.hashing import derive_seed, digest
from muarl_cli.worlds.memory import SIMULATED, Tables, problem

TRIES = 3
MAX_TOKENS = 1024
"""an answer is a record or a short list"""
_OBJECT = re.compile(r"\{.*\}", re.S)


class Speaker(Protocol):
    """The model that plays the tools."""

    async def reply(self, messages: Any, sampling: ChatSampling) -> Reply: ...


class Unreadable(ValueError):
    """A reply that is no answer; says why."""


class SimulatedWorld:
    """A world whose reads and writes are answered by `speaker` from `memory`.

    `real` is the executable world in the shadow, None where the tools cannot be executed; `prompt` makes the system
    prompt from the tool, its memory and the schema.
    """

    user_tools: tuple[ToolSpec, ...] = ()

    def __init__(
        self,
        tools: tuple[ToolSpec, ...],
        memory: Tables,
        schema: Mapping[str, Any],
        speaker: Speaker,
        prompt: Any,
        *,
        seed: int,
        temperature: float,
        real: World | None = None,
    ) -> None:
        self.tools, self.memory, self.schema, self.real = tools, memory, schema, real
        self._speaker, self._prompt = speaker, prompt
        self._seed, self._temperature = seed, temperature
        self._said: list[dict[str, str]] = []
        self._calls = 0

    async def call(self, call: ToolCall, requestor: str) -> ToolResult:
        spec = next(tool for tool in self.tools if tool.name == call.name)
        if spec.klass not in (ToolClass.READ, ToolClass.WRITE):
            return await self.real.call(call, requestor) if self.real is not None else ToolResult("ok")
        text, ok, changed = await self._answer(spec, call)
        if self.real is not None:
            changed = (await self.real.call(call, requestor)).writes
        return ToolResult(text, ok, changed, (SIMULATED,))

    async def _answer(self, spec: ToolSpec, call: ToolCall) -> tuple[str, bool, tuple[Write, ...]]:
        asked = {"role": "user", "content": json.dumps({"tool": call.name, "arguments": dict(call.arguments)})}
        system = {"role": "system", "content": self._prompt(spec, self.memory, self.schema)}
        number, self._calls, why = self._calls, self._calls + 1, ""
        for attempt in range(TRIES):
            notice = [{"role": "user", "content": f"[notice] {why}. Answer the last call again."}] if why else []
            parts = (self._seed, "tool", number, *([attempt] if attempt else []))
            sampling = ChatSampling(self._temperature + 0.3 * attempt, MAX_TOKENS, seed=derive_seed(*parts))
            try:
                reply = await self._speaker.reply([system, *self._said, asked, *notice], sampling)
                text, ok, changes = read_answer(reply.text)
                writes = self._change(changes) if spec.klass is ToolClass.WRITE and ok else ()
            except ContextOverflow as overflow:
                raise ToolFault(f"the calls no longer fit the tool model: {overflow}") from overflow
            except Unreadable as error:
                why = str(error)
                continue
            self._said += [asked, {"role": "assistant", "content": reply.text}]
            return text, ok, writes
        raise ToolFault(f"{TRIES} replies of the tool model are no answers, the last one: {why}")

    def _change(self, changes: list[Any]) -> tuple[Write, ...]:
        """Put the changed records into the memory, all of them or none."""
        after = {table: dict(records) for table, records in self.memory.items()}
        writes = []
        for change in changes:
            if not isinstance(change, Mapping) or not isinstance(change.get("record"), Mapping):
                raise Unreadable("a change needs table, id and record")
            table, key = str(change.get("table", "")), str(change.get("id", ""))
            after.setdefault(table, {})[key] = dict(change["record"])
            writes.append(Write(table.rstrip("s"), key))
        if why := problem(after, self.schema):
            raise Unreadable(f"a change does not conform to the schema: {why}")
        self.memory = after
        return tuple(writes)

    def fingerprint(self) -> str:
        return self.real.fingerprint() if self.real is not None else digest(self.memory, 64)

    def close(self) -> None:
        if self.real is not None:
            self.real.close()


def read_answer(text: str) -> tuple[str, bool, list[Any]]:
    """(answer as the agent reads it, whether the call went through, changed records); raises `Unreadable`."""
    found = _OBJECT.search(text)
    try:
        value = json.loads(found.group()) if found else None
    except ValueError:
        value = None
    if not isinstance(value, dict) or not ({"answer", "error"} & value.keys()):
        raise Unreadable('your reply was no JSON object with "answer" or "error"')
    if value.get("error"):
        return f"Error: {value['error']}", False, []
    answer, changes = value.get("answer"), value.get("changes") or []
    if not isinstance(changes, list):
        raise Unreadable('"changes" must be a list')
    return answer if isinstance(answer, str) else json.dumps(answer), True, changes
