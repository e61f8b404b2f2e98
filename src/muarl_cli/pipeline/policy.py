"""The policy of a run: a model that is trained or played, and the engine that draws its turns.

Invariant: what is trained and what plays are the same weights. Either the engine shares the trainer's own module, or
every update is delivered to it and checked (`deliver`) before the next turn is drawn; where nothing is trained, the
engine is asked before the first turn (`serving.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muarl_cli.pipeline.parties import Agents, Talker, chat_model, the_terminal
from muarl_cli.settings.grammar import HUMAN, parse_engines
from muarl_cli.teams import computed


@dataclass
class Policy:
    """A model that runs in this process: the trainer's own module, or one that is only played. Where servers draw its
    turns and nothing is trained, only its tokenizer is here."""

    model: Any
    tokenizer: Any
    folder: Path
    rendering: str
    dtype: str
    dialect: str = "nonthinking"
    """`training.template_format.Dialect`"""

    def chat(self) -> Any:
        """The chat format that it speaks. Raises `MuarlError` where a template fails its probes."""
        from muarl_cli.training.template_format import open_format

        return open_format(self.tokenizer, self.rendering, self.dialect)

    @property
    def revision(self) -> str:
        """Names tokenizer and template: sampled tokens of an equal one can be trained on as they are."""
        from muarl_cli.hashing import digest

        known = tokenizer_hash(self.tokenizer)
        if self.dialect == "nonthinking":
            return known
        template = self.tokenizer.chat_template if self.dialect == "own" else ""
        return f"{known}-{self.dialect}" + (f"-{digest([template], 8)}" if template else "")

    def agent(self, settings: Any, version: str, engine: Any = None) -> Any:
        """The model as an agent with the sampling and limits of `settings`; without an engine it runs here."""
        from muarl_cli.agents.policy import PolicyAgent
        from muarl_cli.engines.hf import HFEngine
        from muarl_cli.training.lora import base_of
        from muarl_cli.training.tiny_model import context_of

        engine = HFEngine(self.model, self.dtype, version) if engine is None else engine
        holds = getattr(engine, "context", None) or context_of(base_of(self.folder) or self.folder)
        return PolicyAgent(
            engine,
            self.chat(),
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_turn_tokens=settings.limits.max_turn_tokens,
            max_context=min(settings.limits.max_context, holds),
            model=Path(settings.model).name,
            revision=self.revision,
        )


DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


def load_policy(
    model: str, rendering: str, dtype: str, talk: Talker, weights: bool = True, chat: str = "auto"
) -> Policy:
    """A model folder, a checkpoint or a run, verified and loaded; `auto` settings follow from the folder. Without
    `weights` only the tokenizer is loaded."""
    from muarl_cli.records.checkpoint import resolve_model_path
    from muarl_cli.training.template_format import default_dialect
    from muarl_cli.training.tiny_model import format_of, load_model
    from muarl_cli.training.tokenizer import load_tokenizer

    folder = resolve_model_path(Path(model), talk.warn)
    known, tokenizer = format_of(folder), load_tokenizer(folder)
    if rendering == "auto":
        rendering = known[0].value if known else "full"
    if chat == "auto":
        chat = (known[1] if known else default_dialect(tokenizer)).value
    if dtype == "auto":
        import torch

        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    name = DTYPES[dtype]
    return Policy(load_model(folder, name) if weights else None, tokenizer, folder, rendering, name, chat)


def open_policy(policy: Policy, settings: Any, version: str, out: Path) -> Agents:
    """The policy as the agent of a run: on the servers that `settings.engines` names, in vLLM here, or as the module
    itself."""
    if not settings.engines:
        return Agents("policy", fixed=policy.agent(settings, version), in_process=True)
    options = parse_engines(settings.engines)
    if options is not None:
        return Agents("policy", fixed=policy.agent(settings, version, _vllm(policy, settings, version, out, options)))
    from muarl_cli.engines.address import engine_address
    from muarl_cli.engines.limiter import Limiter
    from muarl_cli.engines.vllm_server import open_servers
    from muarl_cli.engines.wire import Wire

    named = [engine_address(url) for url in settings.engines]
    addresses = {address.url: address for address in named}.values()  # one that is named twice is one server
    wires = [Wire(address, limiter=Limiter(settings.in_flight)) for address in addresses]
    engine = asyncio.run(open_servers(wires, version, out / ".weights"))
    return Agents("policy", fixed=policy.agent(settings, version, engine), wires=list(wires))


def _vllm(policy: Policy, settings: Any, version: str, out: Path, options: Mapping[str, Any]) -> Any:
    """vLLM in this process, with the policy's folder; an adapter's with its base, to which it is added."""
    from muarl_cli.engines.vllm_local import VllmLocal
    from muarl_cli.training.lora import base_of, rank_of
    from muarl_cli.training.tiny_model import context_of

    base = base_of(policy.folder)
    trained = getattr(settings, "lora", None)
    return VllmLocal(
        base or policy.folder,
        version,
        dtype=policy.dtype,
        max_context=min(settings.limits.max_context, context_of(base or policy.folder)),
        adapter_rank=rank_of(policy.folder) if base else trained.rank if trained else 0,
        adapter=policy.folder if base else None,
        options=options,
        exchange=out / ".weights",
    )


async def deliver(agents: Agents, policy: Policy, version: str) -> None:
    """Let the policy's engine draw with the weights that the policy's module has now."""
    engine = agents.engine
    if engine.capabilities.shares_weights:
        await engine.sync(None, version)
        return
    from muarl_cli.engines.canary import canary_of

    adapter = hasattr(policy.model, "peft_config")
    canary = await asyncio.to_thread(computed, canary_of, policy.model, policy.dtype)  # conversations may be going on
    await engine.share(policy.model.save_pretrained, version, canary, adapter)


def tokenizer_hash(tokenizer: Any) -> str:
    """Names a tokenizer by what it does: equal hashes mean equal ids for equal texts."""
    import hashlib

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]


def open_agents(settings: Any, folder: Path, talk: Talker) -> Agents:
    """The agent that `settings` name: scripted, a model folder in this process, or a served model."""
    kind = settings.agent
    if kind == HUMAN:
        from muarl_cli.agents.human import HumanAgents

        return Agents(kind, fixed=HumanAgents(the_terminal()))
    if kind != "policy":
        return Agents(kind)
    if Path(settings.model).is_dir():
        here = not settings.engines
        policy = load_policy(settings.model, settings.rendering, settings.dtype, talk, here, settings.chat)
        if not here and parse_engines(settings.engines) is None:
            from muarl_cli.training.lora import require_whole

            require_whole(policy.folder)
        agents = open_policy(policy, settings, "0", folder)
        if not here:
            from muarl_cli.pipeline.serving import require_served

            require_served(agents, policy.folder, talk)
        return agents
    from muarl_cli.agents.openai_chat import OpenAIAgents

    chat = chat_model(settings.model, settings.base_url, settings.prices, settings.max_usd, folder)
    return Agents(
        kind,
        fixed=OpenAIAgents(
            chat,
            temperature=settings.temperature,
            max_turn_tokens=settings.limits.max_turn_tokens,
            top_p=settings.top_p if settings.top_p < 1 else None,
        ),
        wires=[chat.wire],
    )
