"""A language model behind an OpenAI-compatible address as the user.

The model is told the scenario's prompt for the task and hears the agent's words, nothing else. A reply without words
(empty, filtered, cut before a word) is asked for again with another temperature and a reminder, twice; then the episode
ends as a fault of the user, never as a failure of the agent. `_decide` is the seam for code that owns the user's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, Usage, UserFault, UserSession, UserTurn
from muarl_cli.engines.chat import ChatModel, ChatSampling, Finish, Reply
from muarl_cli.engines.wire import ContextOverflow
from muarl_cli.hashing import derive_seed, digest
from muarl_cli.users.messages import END_TOKENS, heard, read_reply

RETRIES = 2


class LlmUsers:
    """Opens user sessions on one chat model.

    `prompt` gives the whole system prompt for a task (`Scenario.user_prompt`). One that does not name the end tokens is
    only a brief; the project's own rules for simulated users are then put around it.
    """

    def __init__(
        self, chat: ChatModel, prompt: Callable[[Any], str], *, temperature: float, max_tokens: int, rules: str = ""
    ) -> None:
        self.chat, self._prompt = chat, prompt
        self._temperature, self._max_tokens = temperature, max_tokens
        self._prompt_hash = digest([rules or _template("user.jinja"), _template("user_reminder.jinja")])

    @property
    def info(self) -> Mapping[str, Any]:
        """`prompt_hash` covers the rules the model plays by, not the single task's brief."""
        return {"backend": "llm", "model": self.chat.model, "prompt_hash": self._prompt_hash}

    def open(self, stage: Stage, task: Any) -> UserSession:
        return _LlmUser(self.chat, system_prompt(self._prompt(task)), stage.seed, self._temperature, self._max_tokens)


class _LlmUser:
    def __init__(self, chat: ChatModel, prompt: str, seed: int, temperature: float, max_tokens: int) -> None:
        self._chat, self._prompt, self._seed = chat, prompt, seed
        self._temperature, self._max_tokens = temperature, max_tokens
        self._messages: list[dict[str, str]] = []

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        self._messages.append({"role": "user", "content": heard(news)})
        usage = Usage()
        for attempt in range(1 + RETRIES):
            reply = await self._ask(attempt)
            usage += reply.usage
            turn = self._decide(reply, usage)
            if turn is not None:
                self._messages.append({"role": "assistant", "content": turn.text or reply.text})
                return turn
        raise UserFault(f"{1 + RETRIES} replies without words, the last one: {reply.finish.value}")

    def close(self) -> None:
        self._messages.clear()

    async def _ask(self, attempt: int) -> Reply:
        prompt, temperature = self._prompt, self._temperature
        if attempt:  # the same question at temperature 0 would get the same silence
            prompt = f"{prompt}\n{_template('user_reminder.jinja')}"
            temperature = min(1.5, max(temperature, 0.4) + 0.3 * attempt)
        turn = sum(message["role"] == "user" for message in self._messages)
        sampling = ChatSampling(temperature, self._max_tokens, seed=derive_seed(self._seed, "user", turn, attempt))
        try:
            return await self._chat.reply([{"role": "system", "content": prompt}, *self._messages], sampling)
        except ContextOverflow as overflow:
            raise UserFault(f"the conversation no longer fits the user model: {overflow}") from overflow

    def _decide(self, reply: Reply, usage: Usage) -> UserTurn | None:
        """What the user does with the model's words; None where there are none to use."""
        if reply.finish is Finish.FILTERED:
            return None
        words, end = read_reply(reply.text)
        if not words and end is None:
            return None
        return UserTurn(text=words, end=end, usage=usage)


def system_prompt(prompt: str) -> str:
    """`prompt` as it is where it names the end tokens, else wrapped in the project's own rules."""
    if any(token in prompt for token in END_TOKENS):
        return prompt
    from jinja2 import Environment, StrictUndefined

    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(_template("user.jinja"))
    return template.render(brief=prompt, tokens=list(END_TOKENS))


@lru_cache(maxsize=8)
def _template(name: str) -> str:
    return (resources.files("muarl_cli.templates") / "prompts" / name).read_text(encoding="utf-8")
