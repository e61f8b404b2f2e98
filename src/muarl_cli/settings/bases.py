"""What the stages' settings are made of: the names of the stages, the kinds of values, and what several stages share.

Invariant: what two stages share stands here once, so that it has one bound and one line of help. No field has a
default, here as in `models.py`, where the stages themselves are.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from muarl_cli.settings.grammar import (
    HUMAN,
    SCRIPTED_AGENTS,
    TaskRef,
    parse_engines,
    parse_mixture,
    parse_rates,
    parse_task_ref,
)
from muarl_cli.settings.groups import (
    Checkouts,
    Count,
    CountOrNone,
    Group,
    Limits,
    Lora,
    Names,
    NotNegative,
    Positive,
    Price,
    Seed,
    Shards,
    TaskRefs,
    User,
)

Rendering = Literal["auto", "full", "compact"]
"""auto = as the checkpoint was trained, full where it does not say"""
Chat = Literal["auto", "nonthinking", "thinking", "own"]
"""auto = as the checkpoint was trained; nonthinking where it does not say and is a Qwen3; else its own template"""
Dtype = Literal["auto", "float32", "bfloat16"]
"""auto = bfloat16 on an accelerator, float32 on a CPU"""
Schedule = Literal["constant", "cosine", "linear"]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Outputs = Literal["check", "drop"]
POLICY = "policy"


class Stage(StrEnum):
    """The five stages, as their pages and environment variables are named."""

    SYNTH_COLDSTART = "synth_coldstart"
    SFT = "sft"
    ROLLOUT = "rollout"
    RL_TRAIN = "rl_train"
    EVAL = "eval"

    @property
    def command(self) -> str:
        """The subcommand: synth-coldstart."""
        return self.value.replace("_", "-")


class StageSettings(Group):
    """What every stage has."""

    seed: Seed
    """seed of everything random in this stage"""
    mcp_servers: Names
    """files of MCP servers that are then known as mcp:NAME, beside those of the package"""


class Conversations(StageSettings):
    """What every stage has that holds conversations."""

    user: User
    limits: Limits
    in_flight: Count
    """conversations held at the same time"""
    max_usd: NotNegative
    """spend cap for paid addresses; 0 = no paid call at all"""
    prices: dict[str, Price]
    """prices of models that the built-in table does not know"""


class Loaded(StageSettings):
    """What every stage has that loads a checkpoint."""

    rendering: Rendering
    """how the system turn is rendered: full or compact; auto = as the checkpoint was trained, else full"""
    chat: Chat
    """chat template: nonthinking or thinking (Qwen3's), own = the checkpoint's; auto = as the checkpoint was trained"""
    dtype: Dtype
    """number type of an in-process model; auto = bfloat16 on an accelerator, float32 on a CPU"""


class Trained(Loaded):
    """What the stages share that train a model."""

    lr: Positive
    """highest learning rate"""
    schedule: Schedule
    """course of the learning rate after the warm-up"""
    warmup_steps: CountOrNone
    """steps over which the learning rate rises from 0"""
    weight_decay: NotNegative
    """AdamW weight decay"""
    betas: Betas
    """AdamW betas"""
    grad_clip: NotNegative
    """largest gradient norm; 0 = no clipping"""
    micro_batch_tokens: Count
    """tokens that go through the model at once, padding included; does not change the result"""
    save_every: CountOrNone
    """steps between two checkpoints; 0 = only at the end"""
    recompute: bool
    """keep only what enters each layer and compute the rest again in the backward pass; does not change the result"""
    lora: Lora
    shards: Shards
    stop_after_seconds: NotNegative
    """stop after the step in which this many seconds are over; 0 = off"""


class Played(Conversations, Loaded):
    """What the stages share in which the policy plays the agent."""

    model: str
    """checkpoint folder, or the name of a model behind base_url; empty = the newest checkpoint under runs/"""
    tasks: TaskRefs
    """task sets as source:scenario:split, single tasks as source:scenario:split:id"""
    max_tasks: CountOrNone
    """use this many tasks, taken evenly from the sets; 0 = all"""
    temperature: Temperature
    """sampling temperature of the policy; 0 = greedy"""
    top_p: TopP
    """nucleus sampling of the policy"""
    checkouts: Checkouts
    engines: Names
    """addresses of vLLM servers that draw the policy's turns, token by token, or vllm = vLLM in this process, with its
    options as vllm?gpu_memory_utilization=0.5; empty = this process does, with transformers"""

    @field_validator("engines")
    @classmethod
    def _engines(cls, value: list[str]) -> list[str]:
        parse_engines(value)
        return value

    @property
    def task_refs(self) -> tuple[TaskRef, ...]:
        """`tasks`, parsed."""
        return tuple(parse_task_ref(text) for text in self.tasks)


class Served(Played):
    """What `rollout` and `eval` share: the agent may also be scripted, or be served elsewhere."""

    agent: str
    """policy = the model; else a scripted agent or a mixture of them"""
    base_url: str
    """OpenAI-compatible address that serves the model; empty = OPENAI_BASE_URL where the model is no folder"""
    world_injectors: str
    """faults that the tools show on purpose, with their rates: latency=0.1,tool_5xx=0.05; empty = none"""
    guard: bool
    """refuse, at run time, a write that breaks a prerequisite or confirm rule of its scenario"""

    @field_validator("world_injectors")
    @classmethod
    def _rates(cls, value: str) -> str:
        parse_rates(value)
        return value

    @field_validator("agent")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (POLICY, HUMAN):
            parse_mixture(value, (POLICY, HUMAN, *SCRIPTED_AGENTS), "agent")
        return value

    @property
    def from_folder(self) -> bool:
        """Whether the agent is a model whose folder is here, wherever its turns are drawn."""
        return self.agent == POLICY and Path(self.model).is_dir()

    @property
    def in_process(self) -> bool:
        """Whether a model in this process draws the agent's turns, in batches that are the same every time."""
        return self.from_folder and not self.engines
