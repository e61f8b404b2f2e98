"""A language model as the user: code decides or watches, the model words, and a gate stands in between.

`Speaker` is whatever turns messages into a reply: a served model, a local one, a recorded one. A reply that may not be
said (see `fidelity`) is asked for once more with another prompt and temperature; then the script says the turn where
there is an agenda, and elsewhere the episode ends as a fault of the user. Invariant: a failure of the model that plays
the user never becomes a failure of the agent, and every refused reply is named in the tags of the user's event.

Where users have tools of their own (dual control) the model is shown them; a reply that calls one is carried out before
any words, unheard by the agent, and the answers go back to the model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from muarl_cli.conversation.events import Event
from muarl_cli.conversation.protocols import Stage, Usage, UserFault, UserSession, UserTurn
from muarl_cli.conversation.tools import ToolSpec
from muarl_cli.engines.chat import ChatSampling, Finish, Reply, assistant_message, message, numbered, tool_message
from muarl_cli.engines.refusals import ContextOverflow
from muarl_cli.hashing import derive_seed, digest
from muarl_cli.users.agenda import AgendaUser
from muarl_cli.users.cassette import Cassette
from muarl_cli.users.fidelity import Broken
from muarl_cli.users.messages import END_TOKENS, heard, own_results, read_reply
from muarl_cli.users.persona import Persona
from muarl_cli.users.state import AgendaState, FreeState, UserState, render, template
from muarl_cli.written import Written

RETRIES = 2
"""further tries after silence; a reply that says the wrong thing is tried again once"""
NOBODY = Persona()
ADVICE = {
    Broken.ROLE_FLIP: "it spoke like the service agent; you are the customer",
    Broken.COPIED: "it recited or mentioned your instructions",
    Broken.INVENTED: "it held a number, id or name that nobody gave you",
    Broken.EARLY: "it told something that is not to be told now",
    Broken.MISSING: "it left out something that has to be said, exactly as it is written",
    Broken.STOP_PENDING: "you agreed to a change that is not done yet; wait for it and say so in words",
    Broken.EARLY_STOP: "it said goodbye, but you still want something",
    Broken.REPEATED: "it was an earlier message of yours, word by word",
    Broken.CONTRADICTION: "it took back what you said, or did not give the yes that is due",
    Broken.FALSE_CONSENT: "it said yes, but the agent's proposal is not what you want",
}


class Speaker(Protocol):
    """Turns messages into words."""

    @property
    def model(self) -> str: ...

    async def reply(
        self, messages: Sequence[Mapping[str, Any]], sampling: ChatSampling, tools: Sequence[ToolSpec] = ()
    ) -> Reply:
        """Raises `InfraFault`, `ContextOverflow`, and where it is a recording `UserFault`."""
        ...


class LlmUsers:
    """Opens user sessions on one speaker.

    `prompt` gives the whole system prompt for a task (`Scenario.user_prompt`). One that does not name the end tokens is
    only a brief; the project's own rules for simulated users are then put around it. With `agenda` (a scripted user of
    the task) the agenda decides each turn, and `prompt` is not used; `scripted_fallback` lets the script say what the
    model could not. Without `gated` only silence is refused. `cassette` records every request and reply, or is what the
    replies come from.
    """

    def __init__(
        self,
        chat: Speaker,
        prompt: Callable[[Any], str],
        *,
        temperature: float,
        max_tokens: int,
        rules: str = "",
        backend: str = "llm",
        persona: Persona = NOBODY,
        agenda: Callable[[Stage, Any], AgendaUser] | None = None,
        gated: bool = True,
        scripted_fallback: bool = True,
        cassette: Cassette | None = None,
    ) -> None:
        self.chat, self.persona = chat, persona
        self._prompt, self._agenda, self._cassette = prompt, agenda, cassette
        self._temperature, self._max_tokens = temperature, max_tokens
        self._backend, self._rules = backend, rules or template("user.jinja")
        self._scripted_fallback, self._gated = scripted_fallback, gated
        main = template("user_wording.jinja") if agenda else self._rules
        self._prompt_hash = digest([main, template("user_reminder.jinja"), template("user_mend.jinja")])

    @property
    def info(self) -> Mapping[str, Any]:
        """`prompt_hash` covers the rules the model plays by, not the single task's brief."""
        return {
            "backend": self._backend,
            "model": self.chat.model,
            "prompt_hash": self._prompt_hash,
            "persona": self.persona.name,
        }

    def open(self, stage: Stage, task: Any) -> UserSession:
        chat = self.chat
        if self._cassette is not None:
            chat = self._cassette.bound(str(getattr(task, "task_hash", task)), stage.seed, chat)
        state = self._state(stage, task)
        return _ModelUser(
            chat, state, stage.seed, self._temperature, self._max_tokens, self._fallback, stage.user_tools
        )

    def _state(self, stage: Stage, task: Any) -> UserState:
        if self._agenda is not None:
            return AgendaState(self._agenda(stage, task), stage, self.persona, self._gated)
        prompt = system_prompt(self._prompt(task))
        if self.persona.directions:
            prompt = f"{prompt}\n\nHow you write: {self.persona.directions}"
        return FreeState(prompt, self._rules, self._gated)

    @property
    def _fallback(self) -> bool:
        return self._scripted_fallback and self._agenda is not None


class _ModelUser:
    def __init__(
        self,
        chat: Speaker,
        state: UserState,
        seed: int,
        temperature: float,
        max_tokens: int,
        fallback: bool,
        tools: Sequence[ToolSpec],
    ) -> None:
        self._chat, self._state, self._seed, self._fallback = chat, state, seed, fallback
        self._temperature, self._max_tokens, self._tools = temperature, max_tokens, tools
        self._messages: list[Written] = []
        self._calls = 0

    async def respond(self, news: Sequence[Event]) -> UserTurn:
        ready = await self._state.hear(news)
        if ready is not None:
            return ready
        answers = own_results(news)
        self._messages += [tool_message(event) for event in answers] or [message("user", heard(news))]
        usage, mends = Usage(), 0
        tags: list[str] = []
        wrong: tuple[Broken, ...] = ()
        for attempt in range(1 + RETRIES):
            reply = await self._ask(attempt, wrong)
            usage += reply.usage
            if reply.calls and self._tools:
                return self._act(reply, usage, tags)
            words, end = ("", None) if reply.finish is Finish.FILTERED else read_reply(reply.text)
            verdict = self._state.judge(words, end)
            tags += [tag for broken in verdict.broken if (tag := f"fidelity:{broken}") not in tags]
            if verdict.turn is not None:
                return self._say(verdict.turn, usage, tags)
            wrong = verdict.broken
            mends += wrong != (Broken.EMPTY,)
            if mends > 1:
                break
        turn = self._state.fallback() if self._fallback else None
        if turn is None:
            raise UserFault(_complaint(attempt + 1, wrong, reply))
        return self._say(turn, usage, [*tags, "fidelity:fallback"])

    def close(self) -> None:
        self._messages.clear()

    def _say(self, turn: UserTurn, usage: Usage, tags: Sequence[str]) -> UserTurn:
        self._state.accept(turn)
        self._messages.append(message("assistant", turn.text or "(leaves)"))
        return replace(turn, usage=usage, tags=(*turn.tags, *tags))

    def _act(self, reply: Reply, usage: Usage, tags: Sequence[str]) -> UserTurn:
        """A turn on the user's own device; words beside it are not heard, as upstream has it."""
        first = self._calls + 1
        self._calls += len(reply.calls)
        calls = tuple(numbered(raw, f"user{n:05d}") for n, raw in enumerate(reply.calls, first))
        self._messages.append(assistant_message(reply.text, calls))
        return UserTurn(calls=calls, usage=usage, tags=tuple(tags))

    async def _ask(self, attempt: int, wrong: tuple[Broken, ...]) -> Reply:
        prompt, temperature = self._state.prompt(), self._temperature
        if attempt:  # the same question at temperature 0 would get the same answer
            lines = [ADVICE[broken] for broken in wrong if broken in ADVICE]
            mend = render("user_mend.jinja", wrong=lines) if lines else template("user_reminder.jinja")
            prompt = f"{prompt}\n{mend}"
            temperature = min(1.5, max(temperature, 0.4) + 0.3 * attempt)
        turn = sum(said["role"] != "assistant" for said in self._messages)
        sampling = ChatSampling(temperature, self._max_tokens, seed=derive_seed(self._seed, "user", turn, attempt))
        messages = [message("system", prompt), *self._messages]
        try:
            if self._tools:
                return await self._chat.reply(messages, sampling, self._tools)
            return await self._chat.reply(messages, sampling)
        except ContextOverflow as overflow:
            raise UserFault(f"the conversation no longer fits the user model: {overflow}") from overflow


def _complaint(tries: int, wrong: tuple[Broken, ...], last: Reply) -> str:
    if wrong == (Broken.EMPTY,):
        return f"{tries} replies without words, the last one: {last.finish.value}"
    return f"{tries} replies that may not be said, the last one for {', '.join(wrong)}"


def system_prompt(prompt: str) -> str:
    """`prompt` as it is where it names the end tokens, else wrapped in the project's own rules."""
    if any(token in prompt for token in END_TOKENS):
        return prompt
    return render("user.jinja", brief=prompt, tokens=list(END_TOKENS))
