"""Who takes part: agents and users from settings, opened for a scenario.

Invariant: whoever plays, the same loop is used; what cannot play (a scripted agent without a domain's language, a user
back-end that is not there) is refused before the first episode, with what would work instead.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from muarl_cli.conversation.protocols import AgentFactory, UserFactory
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import derive_seed
from muarl_cli.settings.grammar import SCRIPTED_AGENTS, USER_BACKENDS, parse_mixture
from muarl_cli.settings.groups import Price, User
from muarl_cli.worlds.scenario import Scenario, Task, user_tools_of

if TYPE_CHECKING:
    from muarl_cli.users.human import Terminal
    from muarl_cli.users.mixture import Draw


class Talker(Protocol):
    """The part of the command line's `Talk` that stages use."""

    def say(self, text: object) -> None: ...

    def warn(self, text: object) -> None: ...

    def progress(self, total: int, label: str) -> Any: ...

    def show(self, item: object) -> None: ...


@dataclass
class Agents:
    """The agent of a run, for any scenario."""

    kind: str
    factories: dict[str, AgentFactory] = field(default_factory=dict)
    """made once a scenario and manner"""
    fixed: AgentFactory | None = None
    """a policy or a served model, which plays every scenario"""
    in_process: bool = False
    """whether turns are generated here, in batches whose composition decides the last bits"""
    wires: list[Any] = field(default_factory=list)
    """connections to served models, which are let go in the end"""

    @property
    def engine(self) -> Any:
        """What draws a policy's turns; None where no policy plays."""
        return getattr(self.fixed, "engine", None)

    async def probe(self) -> None:
        """Raises `MuarlError` where a chat model does not answer or is not there; engines are asked when they open."""
        chat: Any = getattr(self.fixed, "chat", None)
        if hasattr(chat, "wire"):  # a policy's own `chat` is the format that it speaks
            await chat.wire.check(chat.model)

    async def close(self) -> None:
        """Let go of the connections to served models, and of the engine."""
        for wire in self.wires:
            await wire.close()
        if self.engine is not None:
            self.engine.close()

    @property
    def seconds_drawing(self) -> float:
        """How long an engine in this process has worked so far; 0 where it is elsewhere."""
        return float(getattr(self.engine, "seconds", 0.0))

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Servers of the engine that do not answer and whose conversations go on elsewhere."""
        return tuple(getattr(self.engine, "unreachable", ()))

    async def forget(self) -> None:
        """Drop what an engine in this process has cached. A wave then depends on its own jobs and weights alone, to the
        last bit: a resumed run that reads earlier waves from the log plays the next one as the straight run did."""
        if self.in_process:
            await self.engine.sync(None, self.engine.weight_version)

    def of(self, scenario: Scenario, seed: int) -> AgentFactory:
        """Who plays this rollout; a mixture is drawn by the rollout's seed."""
        if self.fixed is not None:
            shown = getattr(scenario, "presented", None)
            return cast(AgentFactory, shown(self.fixed)) if shown else self.fixed
        shares = parse_mixture(self.kind, SCRIPTED_AGENTS, "agent")
        name = _draw(shares, derive_seed(seed, "agent-kind"))
        key = f"{scenario.source}:{scenario.name}:{name}"
        if key not in self.factories:
            self.factories[key] = scripted_agent(name, scenario)
        return self.factories[key]


def _draw(shares: tuple[tuple[str, float], ...], seed: int) -> str:
    names, weights = zip(*shares, strict=True)
    return str(random.Random(seed).choices(names, weights)[0])


def scripted_agent(name: str, scenario: Scenario) -> AgentFactory:
    """A scripted agent by its name on the command line; raises `MuarlError` where it cannot play this scenario."""
    from muarl_cli.agents.floors import DoNothing, TransferOnly
    from muarl_cli.agents.gold_replay import GoldReplay

    simple: dict[str, Callable[[], AgentFactory]] = {
        "do-nothing": DoNothing,
        "transfer-only": TransferOnly,
        "gold-replay": GoldReplay,
    }
    if name in simple:
        return simple[name]()
    from muarl_cli.agents.scripted import Manner, ScriptedAgents

    language = getattr(scenario, "language", None)
    if language is None:
        raise MuarlError(
            f"the scripted agent {name!r} cannot play {scenario.source}:{scenario.name}",
            why="it speaks through a built-in scenario's language table",
            next_step="use gold-replay, do-nothing or transfer-only there, or a model",
            code=ExitCode.USAGE,
        )
    from muarl_cli.agents.recovering import RecoveringAgents

    agents = ScriptedAgents(language, Manner(name))
    if name != Manner.HASTY:  # who is in a hurry does not look what went wrong either
        return RecoveringAgents(agents)
    return agents


class Users:
    """The user of a run, for any scenario: back-ends and personas are drawn by the rollout's seed."""

    def __init__(self, settings: User, prices: Mapping[str, Price], max_usd: float, folder: Path) -> None:
        from muarl_cli.users.mixture import Mixture

        self.settings = settings
        shares = parse_mixture("scripted" if settings.backend == "auto" else settings.backend, USER_BACKENDS, "user")
        self._mixture = Mixture(shares, settings.personas)
        self._made: dict[str, UserFactory] = {}
        self._speakers: dict[str, Any] = {}
        self._spend = (prices, max_usd, folder)
        kinds = {name for name, _ in shares}
        self._served = "llm" in kinds
        self.remote = bool(kinds & {"llm", "human"})
        """whether turns come from outside of this process"""
        rivals = sorted(kinds & {"llm", "replay"} | (set() if settings.local else kinds & {"hf"}))
        if len(rivals) > 1:
            raise MuarlError(
                f"the user back-ends {' and '.join(rivals)} both take what user.model names",
                next_step="name the folder of an hf user with user.local=FOLDER; replay cannot be mixed with llm",
                code=ExitCode.CONFIG,
            )

    def of(self, scenario: Scenario, seed: int) -> UserFactory:
        """Who plays the user of this rollout; a mixture is drawn by the rollout's seed. Where the user's turns are part
        of a benchmark's data, nobody plays."""
        written: UserFactory | None = getattr(scenario, "users", None)
        if written is not None:
            return written
        draw = self._mixture.draw(seed)
        key = f"{scenario.source}:{scenario.name}:{draw.backend}:{draw.persona.name}"
        if key not in self._made:
            self._made[key] = self._make(scenario, draw)
        return self._made[key]

    async def probe(self) -> None:
        """Raises `MuarlError` where the address of an llm user does not answer or does not serve the model."""
        if self._served:
            speaker, _ = self._speaker("llm")
            await speaker.wire.check(speaker.model)

    @property
    def wires(self) -> list[Any]:
        """The connections to served models, as far as they were needed."""
        return [speaker.wire for speaker, _ in self._speakers.values() if hasattr(speaker, "wire")]

    async def close(self) -> None:
        """Let go of the connections to served models."""
        for wire in self.wires:
            await wire.close()

    def _make(self, scenario: Scenario, draw: Draw) -> UserFactory:
        if draw.backend == "scripted":
            return scripted_user(scenario, self.settings.injectors)
        if draw.backend == "human":
            from muarl_cli.users.human import HumanUsers

            return HumanUsers(the_terminal(), scenario.user_prompt)
        if draw.backend == "replay":
            from muarl_cli.users.replay import ReplayUsers, is_episode_log

            if is_episode_log(Path(self.settings.model)):
                return ReplayUsers(Path(self.settings.model))
        return self._worded(scenario, draw)

    def _worded(self, scenario: Scenario, draw: Draw) -> UserFactory:
        from muarl_cli.users.llm import LlmUsers

        if draw.backend == "hf" and user_tools_of(scenario):
            raise MuarlError(
                f"an hf user cannot play {scenario.source}:{scenario.name}",
                why="its users have tools of their own, and a local model is not shown any",
                next_step="serve the model and name it with --user-model and --user-base-url",
                code=ExitCode.USAGE,
            )
        speaker, cassette = self._speaker(draw.backend)
        official = getattr(scenario, "worded_users", None)
        if official is not None:
            return cast(UserFactory, official(speaker, self.settings.temperature, self.settings.max_tokens, cassette))
        scripted = scripted_user(scenario)
        return LlmUsers(
            speaker,
            scenario.user_prompt,
            temperature=self.settings.temperature,
            max_tokens=self.settings.max_tokens,
            rules=str(getattr(scenario, "user_guidelines", "")),
            backend=draw.backend,
            persona=draw.persona,
            agenda=scripted.open if hasattr(scenario, "language") else None,  # type: ignore[arg-type]
            gated=self.settings.fidelity == "gate",
            scripted_fallback=self.settings.fallback == "scripted",
            cassette=cassette,
        )

    def _speaker(self, backend: str) -> tuple[Any, Any]:
        """(who gives the words, the cassette), made once a back-end."""
        from muarl_cli.users.cassette import Cassette, NoSpeaker

        if backend not in self._speakers:
            own = self.settings
            if backend == "replay":
                tape = Cassette(Path(own.model), recording=False)
                self._speakers[backend] = (NoSpeaker(tape), tape)
                return self._speakers[backend]
            if backend == "hf":
                from muarl_cli.users.hf import open_hf_speaker

                speaker: Any = open_hf_speaker(own.local or own.model)
            else:
                speaker = chat_model(own.model, own.base_url, *self._spend, own.timeout, "--user-base-url")
            recorder = next((made for _, made in self._speakers.values() if made and made.recording), None)
            if recorder is None and own.cassette:
                recorder = Cassette(Path(own.cassette), recording=True)
            self._speakers[backend] = (speaker, recorder)
        return self._speakers[backend]


@cache
def the_terminal() -> Terminal:
    """The terminal of this process: read from standard input, shown on standard error."""
    from muarl_cli.plain_text import clean
    from muarl_cli.users.human import Terminal

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return Terminal(write, clean)


def scripted_user(scenario: Scenario, injectors: Mapping[str, float] | None = None) -> UserFactory:
    """The scripted user of a scenario: an agenda where the scenario has a language, else the minimal user, which has
    nothing that could be injected."""
    language = getattr(scenario, "language", None)
    if language is not None:
        from muarl_cli.users.agenda import AgendaUsers

        return AgendaUsers(language, injectors)
    from muarl_cli.users.minimal import MinimalUsers

    return MinimalUsers()


def chat_model(
    model: str,
    base_url: str,
    prices: Mapping[str, Price],
    max_usd: float,
    folder: Path,
    timeout: float | None = None,
    flag: str = "--base-url",
) -> Any:
    """A model behind an OpenAI-compatible address; an address that is not on this machine needs a spend cap. `timeout`:
    seconds to wait for a reply, where the wire's own patience is too long. `flag` is the one that names the address:
    errors say it."""
    from muarl_cli.engines.chat import ChatModel
    from muarl_cli.engines.wire import RetryPolicy, open_wire
    from muarl_cli.records.ledger import Price as LedgerPrice

    retry = RetryPolicy(request_seconds=timeout) if timeout else None
    known = {name: LedgerPrice(price.input, price.output) for name, price in prices.items()}
    try:
        wire = open_wire(base_url, max_usd=max_usd, ledger=folder / "spend.json", prices=known, retry=retry)
    except MuarlError as error:  # which of the run's models it is about, and the flag that this one has
        where = error.where.replace("--base-url", flag) or f"the address of {model}"
        step = error.next_step.replace("--base-url", flag)
        raise MuarlError(error.what, where=where, why=error.why, next_step=step, code=error.code) from error
    return ChatModel(wire, model)


def needs_write(tasks: list[tuple[Scenario, Task]]) -> dict[str, bool]:
    """By task hash, whether solving it takes a write."""
    return {task.task_hash: task.writes for _, task in tasks}
