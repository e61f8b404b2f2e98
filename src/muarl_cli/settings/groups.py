"""The groups of settings that several stages share: user, limits, prices, the teacher, the tiny model.

Invariant: one name means one thing in every stage. Fields have bounds and a line of help, and no default:
defaults stand in `stages/*.yaml` alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from muarl_cli.settings.grammar import (
    AUTO,
    INJECTORS,
    SCRIPTED_AGENTS,
    USER_BACKENDS,
    nearest,
    parse_mixture,
    parse_task_ref,
)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
"""a count in which 0 means: no limit"""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def as_list(value: Any) -> Any:
    """`a,b` as given on the command line is the list [a, b]."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _task_refs(value: list[str]) -> list[str]:
    return [str(parse_task_ref(text)) for text in value]


Names = Annotated[list[str], BeforeValidator(as_list)]
TaskRefs = Annotated[list[str], BeforeValidator(as_list), AfterValidator(_task_refs)]


class Group(BaseModel):
    """A group of settings: unknown keys are refused, values cannot be changed after resolving."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True, protected_namespaces=()
    )


def _as_rates(value: Any) -> Any:
    """`a=0.1,b=1` as given on the command line is the mapping {a: 0.1, b: 1}; "" is the empty one."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    return {name.strip(): share.strip() if equals else "1" for name, equals, share in pairs}


def _injectors(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if name not in INJECTORS:
            raise ValueError(f"unknown injector {name!r}: {nearest(name, INJECTORS)}")
    return value


Rates = Annotated[dict[str, Share], BeforeValidator(_as_rates), AfterValidator(_injectors)]


class User(Group):
    """Who plays the user."""

    backend: str
    """scripted, llm, hf, replay, human; a mixture as scripted=0.6,llm=0.4; auto = llm on a benchmark, else scripted"""
    model: str
    """model of an llm or hf user, or the cassette or episode log of a replay user"""
    local: str
    """folder of the model of an hf user, where llm and hf users are mixed; empty = model"""
    base_url: str
    """OpenAI-compatible address of an llm user; empty = OPENAI_BASE_URL, else the vendor's own"""
    temperature: Annotated[float, Field(ge=0, le=2)]
    """sampling temperature of an llm or hf user"""
    max_tokens: Count
    """tokens a user turn of an llm or hf user"""
    timeout: Positive
    """seconds to wait for one reply of an llm user, before it is asked for again"""
    personas: dict[str, dict[str, NotNegative]]
    """weights of persona axes for users that a model words, as {verbosity: {terse: 0.3, standard: 0.7}}; {} = none"""
    cassette: str
    """file that records every request to a user model and its reply, for a replay user later; empty = none"""
    fidelity: Literal["gate", "off"]
    """what a model may say as the user: gate = what passes the checks, off = everything but silence"""
    fallback: Literal["scripted", "none"]
    """who words a turn that the model could not word: the script, where there is one; none = the episode is invalid"""
    injectors: Rates
    """what makes the scripted user harder, as ambiguity=0.1,tangent=0.05: in which share of episodes each is armed"""

    @field_validator("backend")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != AUTO:
            parse_mixture(value, USER_BACKENDS, "user backend")
        return value

    @field_validator("personas")
    @classmethod
    def _known_personas(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        from muarl_cli.users.persona import check_weights

        check_weights(value)
        return value


class Limits(Group):
    """Bounds of one episode. Those of the agent end it as a valid failure, seconds as an invalid episode."""

    max_turns: Count
    """counted turns: user messages plus tool calls"""
    max_agent_tokens: CountOrNone
    """sampled agent tokens in the whole episode; 0 = no limit"""
    max_turn_tokens: Count
    """sampled agent tokens in one turn"""
    max_context: Count
    """tokens of the whole token list, prompt included"""
    max_identical_calls: Annotated[int, Field(ge=2)]
    """the same call with the same arguments, this many times in a row"""
    max_failed_calls: Count
    """calls answered by an error, this many in a row"""
    max_seconds: NotNegative
    """wall-clock seconds; 0 = no limit"""


class Checkouts(Group):
    """Where benchmarks lie that are no packages."""

    tau1_root: str
    """checkout of sierra-research/tau-bench; empty = MUARL_TAU1_ROOT"""
    tau2_root: str
    """checkout of sierra-research/tau2-bench, used instead of the package; empty = MUARL_TAU2_ROOT, else the package"""
    tau2_python: str
    """interpreter that runs the TAU2 checkout; empty = MUARL_TAU2_PYTHON, else this one"""


class Judge(Group):
    """Who judges what a task asserts in words: a part of its score. (`judges` vote on demonstrations instead.)"""

    model: str
    """a model behind an OpenAI-compatible address; empty = nobody, and those assertions are reported as null"""
    base_url: str
    """address of the judge; empty = OPENAI_BASE_URL, else the vendor's own"""


Reaction = Literal["warn", "pause", "stop"]
"""warn = say it; pause = end with exit code 75 and go on with the same command; stop = end until this is changed"""


class Watchdogs(Group):
    """What follows when a watchdog of `rl-train` sees its bound crossed: warn, pause or stop."""

    nan: Reaction
    """steps that were not finite, and therefore not applied"""
    entropy: Reaction
    """entropy of the policy's tokens far from where it began"""
    reward_spread: Reaction
    """rewards within groups that no longer differ"""
    loops: Reaction
    """episodes that end in repeated calls"""
    faults: Reaction
    """conversations that end in a fault"""
    do_nothing: Reaction
    """rewards that were earned without a write"""
    writes: Reaction
    """writes an episode on their way to none"""
    transfers: Reaction
    """episodes handed over to a human"""
    corrupt: Reaction
    """rewards that were earned with a rule of policy or safety broken"""
    mismatch: Reaction
    """KL between the engine's and the trainer's probabilities"""


class AlarmAt(Group):
    """The bounds of the watchdogs."""

    window: Count
    """steps that are averaged, at the end of the run so far and at its beginning"""
    nan: Count
    """steps in all that were not applied"""
    entropy: Annotated[float, Field(gt=1)]
    """factor from the beginning, in either direction"""
    reward_spread: Share
    """share of the beginning's spread"""
    loops: Share
    """share of the valid episodes"""
    faults: Share
    """share of the conversations held, retries included"""
    do_nothing: Share
    """rise over the beginning, as a share of the valid episodes"""
    writes: Share
    """share of the beginning's writes an episode"""
    transfers: Share
    """rise over the beginning, as a share of the valid episodes"""
    corrupt: Share
    """rise over the beginning, as a share of the valid episodes"""
    mismatch: Positive
    """nats a token, the k3 estimate"""


class Price(Group):
    """What a model costs, in USD per million tokens."""

    input: NotNegative
    """USD per million prompt tokens"""
    output: NotNegative
    """USD per million sampled tokens"""


class Teacher(Group):
    """Who plays the agent in a cold start."""

    agent: str
    """scripted agents, as careful or as a mixture careful=0.4,hasty=0.6; not used where a model is named"""
    model: str
    """a teacher model behind an OpenAI-compatible address; empty = the scripted agents"""
    base_url: str
    """address of the teacher model; empty = OPENAI_BASE_URL, else the vendor's own"""
    temperature: Annotated[float, Field(ge=0, le=2)]
    """sampling temperature of a teacher model"""

    @field_validator("agent")
    @classmethod
    def _known(cls, value: str) -> str:
        parse_mixture(value, SCRIPTED_AGENTS, "agent")
        return value


class ToolModel(Group):
    """The model that plays the tools where they are simulated."""

    model: str
    """a model behind an OpenAI-compatible address"""
    base_url: str
    """its address; empty = OPENAI_BASE_URL, else the vendor's own"""
    temperature: Annotated[float, Field(ge=0, le=1)]
    """sampling temperature of its first try; further tries are warmer"""


class Judges(Group):
    """The committee that votes on demonstrations which the filters let pass. (`judge` scores assertions instead.)"""

    models: Names
    """models of the committee, behind one address; empty = no committee. More than half must accept"""
    base_url: str
    """OpenAI-compatible address of the judges; empty = OPENAI_BASE_URL, else the vendor's own"""


class Tiny(Group):
    """The tiny model that `sft` makes from nothing where no model is named."""

    layers: Count
    """transformer layers"""
    width: Annotated[int, Field(ge=8)]
    """hidden size"""
    heads: Count
    """attention heads"""
    kv_heads: Count
    """key and value heads; must divide heads"""
    head_size: Annotated[int, Field(ge=4, multiple_of=2)]
    """size of one attention head"""
    vocab: Annotated[int, Field(ge=300)]
    """tokenizer entries, special tokens included"""
    warmup_steps: CountOrNone
    """steps of pure copying before fine-tuning; 0 = none"""
    warmup_lr: Positive
    """learning rate of the copy warm-up"""
    warmup_batch: Count
    """rows a step of the copy warm-up"""

    @field_validator("kv_heads")
    @classmethod
    def _divides(cls, value: int, info: Any) -> int:
        heads = info.data.get("heads")
        if heads and heads % value:
            raise ValueError(f"must divide heads ({heads})")
        return value


class Shards(Group):
    """How training is spread over the processes that --launcher starts."""

    zero: Literal[0, 2, 3]
    """what is divided among them, by DeepSpeed: 2 = gradients and optimiser, 3 = the weights too; 0 = one process"""
    offload: bool
    """keep the optimiser's state in main memory; needs zero 2 or 3"""

    @field_validator("offload")
    @classmethod
    def _has_effect(cls, value: bool, info: Any) -> bool:
        if value and info.data.get("zero") == 0:
            raise ValueError("offload has no effect with shards.zero=0: set shards.zero to 2 or 3")
        return value


class Lora(Group):
    """Low-rank adapters instead of full fine-tuning."""

    rank: CountOrNone
    """rank of the adapters; 0 = full fine-tuning"""
    alpha: Positive
    """their scale is alpha / rank"""
    targets: str
    """all-linear, or names of modules separated by commas"""
