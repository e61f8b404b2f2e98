"""What ACEBench's parties see: the history as text, the user that a model words, and the answer to words where no user
is there.

Invariant: the history is made of what the agent knows alone, and equals the official one to the letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muarl_cli.benchmarks.acebench_package import open_checkout
from muarl_cli.conversation.events import Actor, Event
from muarl_cli.conversation.protocols import Stage, UserFault, UserSession, UserTurn
from muarl_cli.engines.chat import ChatSampling, Finish
from muarl_cli.engines.wire import ContextOverflow
from muarl_cli.hashing import derive_seed

FINISH = "finish conversation"
TURN_ERROR = "Error during execution: {str(e)}"
"""the official multi-turn error, which reaches the agent as a list of its characters"""
_EXECUTION = {"multi_turn": "execution:", "multi_step": "execution result:"}


def history_of(kind: str, events: Sequence[Event]) -> str:
    """The official history: a line a message. In multi-step the agent's own messages are not part of it, and the answer
    to words comes from execution, not from a user."""
    lines: list[str] = []
    answers: list[str] = []
    opened = False
    for event in events:
        if event.actor is Actor.WORLD:
            answers.append(event.text)
            continue
        lines += _execution(kind, answers)
        answers = []
        if event.actor is Actor.USER:
            label = "user:" if kind == "multi_turn" or not opened else _EXECUTION[kind]
            lines.append(label + event.text)
            opened = True
        elif kind == "multi_turn":
            lines.append(f"agent:{event.text}")
    return "".join(f"{line}\n" for line in [*lines, *_execution(kind, answers)])


def _execution(kind: str, answers: Sequence[str]) -> list[str]:
    """One message of execution for all the calls of a turn."""
    return [_EXECUTION[kind] + _reply(answers)] if answers else []


def _reply(texts: Sequence[str]) -> str:
    if TURN_ERROR in texts:
        return str(list(TURN_ERROR))
    return str([_value(text) for text in texts])


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class _StepUser:
    def __init__(self, task: Any) -> None:
        self._task, self._opened = task, False

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if not self._opened:
            self._opened = True
            return UserTurn(str(self._task.brief["instruction"]))
        words = " ".join(event.text for event in news if event.heard_by_user())
        return UserTurn(str(open_checkout().server.ask("words", text=words)))

    def close(self) -> None:
        return None


class StepUsers:
    """Multi-step: nobody but the task. Words of the agent are answered as the official executor answers what is no
    call."""

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "written", "model": "", "prompt_hash": ""}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _StepUser(task)


class TurnUsers:
    """Multi-turn: the official user, worded by a model under the official prompt."""

    def __init__(
        self,
        speaker: Any,
        temperature: float,
        max_tokens: int,
        cassette: Any,
        prompt: Callable[[Any], tuple[str, str, str]],
    ) -> None:
        self.speaker, self.temperature, self.max_tokens = speaker, temperature, max_tokens
        self._cassette, self._prompt = cassette, prompt

    @property
    def info(self) -> Mapping[str, Any]:
        return {"backend": "llm", "model": self.speaker.model, "prompt_hash": "acebench-official"}

    def open(self, stage: Stage, task: Any) -> UserSession:
        speaker = self.speaker
        if self._cassette is not None:
            speaker = self._cassette.bound(task.task_hash, stage.seed, speaker)
        return _TurnUser(speaker, self.temperature, self.max_tokens, stage.seed, *self._prompt(task))


class _TurnUser:
    def __init__(
        self, speaker: Any, temperature: float, max_tokens: int, seed: int, system: str, opening: str, role: str
    ) -> None:
        self._speaker, self._temperature, self._max_tokens = speaker, temperature, max_tokens
        self._seed, self._role = seed, role
        self._messages = [{"role": "system", "content": system}, {"role": "user", "content": opening}]
        self._turns = 0

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        if self._turns:
            words = " ".join(event.text for event in news if event.heard_by_user())
            for prefix in ("user:", "agent:"):
                words = words.removeprefix(prefix)
            self._messages.append({"role": "user", "content": words})
        sampling = ChatSampling(self._temperature, self._max_tokens, seed=derive_seed(self._seed, "user", self._turns))
        self._turns += 1
        try:
            reply = await self._speaker.reply(self._messages, sampling)
        except ContextOverflow as overflow:
            raise UserFault(f"the conversation no longer fits the user model: {overflow}") from overflow
        if reply.finish is Finish.FILTERED or not reply.text.strip():
            raise UserFault(f"the user model said nothing: {reply.finish.value}")
        self._messages.append({"role": self._role, "content": reply.text})
        return UserTurn(reply.text, usage=reply.usage)

    def close(self) -> None:
        self._messages.clear()
