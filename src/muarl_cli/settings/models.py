"""The settings of the five stages, typed and bounded.

Invariant: no field has a default here. Each has exactly one, with its reason, in the stage's page under `stages/`; a
test compares the two. The docstring under a field is its help text and its description in the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from muarl_cli.settings.bases import (
    Conversations,
    Outputs,
    Played,
    Served,
    Stage,
    StageSettings,
    Trained,
)
from muarl_cli.settings.grammar import parse_engines
from muarl_cli.settings.groups import (
    AlarmAt,
    Count,
    CountOrNone,
    Judge,
    Judges,
    Names,
    NotNegative,
    Positive,
    Share,
    Teacher,
    Tiny,
    ToolModel,
    Watchdogs,
    as_list,
)


class SynthColdstart(Conversations):
    """Settings of `muarl synth-coldstart`."""

    scenarios: str
    """a number N = the first N of the printed order, or names separated by commas"""
    count: Count
    """accepted trajectories wanted"""
    split: str
    """the split whose tasks are demonstrated"""
    teacher: Teacher
    accept: Literal["verified", "outcome", "all"]
    """what is accepted: verified = what passes every filter; outcome = reward 1; all = every valid one, failures too"""
    order: Literal["coverage", "file"]
    """which tasks come first: coverage = those that need a tool or a pair of them not seen yet; file = as they are"""
    max_message_words: Count
    """words of one message of the agent, for verified ones"""
    max_similarity: Annotated[float, Field(gt=0.6, le=1)]
    """verified: refused where this share of its word triples is that of an accepted one; 1 = the very same words"""
    judges: Judges
    queries: Literal["template", "written"]
    """where tasks come from: the scenario's generator, or the teacher model, which writes queries and personas"""
    tools: Literal["executable", "simulated"]
    """who answers tool calls: the tools, or a model that plays them from a small database"""
    tool: ToolModel
    max_attempts: Annotated[float, Field(ge=1)]
    """conversations held at most, as a multiple of count, before giving up"""

    @model_validator(mode="after")
    def _played(self) -> Self:
        if (self.tools == "simulated") != bool(self.tool.model):
            raise ValueError("tools=simulated needs tool.model, and only then has it a use")
        if self.queries == "written" and not (self.teacher.model and self.user.backend in ("llm", "hf")):
            raise ValueError("queries=written needs teacher.model to write them and an llm or hf user to play them")
        return self

    @field_validator("scenarios")
    @classmethod
    def _named(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names or value.strip() == "0":
            raise ValueError("a number of scenarios, or names separated by commas")
        return ",".join(names)


class Sft(Trained):
    """Settings of `muarl sft`."""

    data: Names
    """episode logs, run folders, or - for standard input"""
    where: str
    """which episodes: comparisons separated by commas, such as reward=1,scenario=retail; empty = all valid ones"""
    model: str
    """folder of the model to start from; empty = make a tiny model from nothing"""
    tiny: Tiny
    batch: Count
    """episodes an optimiser step"""
    epochs: NotNegative
    """passes over the data"""
    max_steps: CountOrNone
    """optimiser steps; 0 = by epochs"""
    max_length: Count
    """longest episode in tokens; longer ones are left out and counted"""
    eval_share: Annotated[Share, Field(lt=1)]
    """share of the episodes held out for the evaluation loss"""
    eval_every: CountOrNone
    """steps between two evaluations; 0 = only at the end"""
    keep: Count
    """checkpoints kept, the best or highest one not counted"""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not (self.epochs or self.max_steps or self.stop_after_seconds):
            raise ValueError("epochs, max_steps and stop_after_seconds are all 0: training would never take a step")
        return self

    @model_validator(mode="after")
    def _based(self) -> Self:
        if self.lora.rank and not self.model:
            raise ValueError("an adapter needs a model that it adapts: name one, or set lora.rank to 0")
        return self


class Rollout(Served):
    """Settings of `muarl rollout`."""

    group: Count
    """rollouts a task"""


class RlTrain(Played, Trained):
    """Settings of `muarl rl-train`."""

    steps: CountOrNone
    """optimiser steps; 0 = by epochs"""
    epochs: NotNegative
    """passes over the tasks; 0 = by steps"""
    prompts_per_step: Count
    """tasks a step; none comes twice in one"""
    group: Annotated[int, Field(ge=2)]
    """rollouts a task: what the advantage compares"""
    reward: Literal["outcome", "rubric", "gated"]
    """what an episode is worth: 1 for the right end; the share of its task's checks that hold; or 1 for the right end
    reached without breaking policy or safety"""
    advantage: Literal["mean", "mean_std", "batch", "loo"]
    """reward minus group mean; that over the group's, or the whole batch's, standard deviation; or reward minus the
    mean of the others"""
    credit: Literal["episode", "turn"]
    """whether all of an episode's tokens share its advantage, or each turn gets that of what came after it"""
    loss: Literal["token_mean", "sequence_mean", "dr_grpo", "gspo", "cispo"]
    """policy loss and how tokens are weighed in it; training/losses.py has the formulae"""
    loss_length: Count
    """the constant length that dr_grpo divides by; no other loss looks at it"""
    clip_low: Annotated[float, Field(gt=0, le=1)]
    """the ratio is clipped at 1 - clip_low"""
    clip_high: Positive
    """the ratio is clipped at 1 + clip_high"""
    dual_clip: NotNegative
    """the loss of a negative advantage is at most this many times it; 0 = off, else above 1"""
    adaptive_clip: NotNegative
    """clip_high grows by this share for a group that never succeeds, by less the more it does; 0 = fixed"""
    importance_cap: NotNegative
    """weigh tokens by trainer's over engine's probability, at most this; 0 = off"""
    sequence_gate: list[Positive]
    """bounds of the geometric mean of that ratio outside which an episode teaches nothing; empty = off"""
    off_policy_mask: NotNegative
    """largest mean of log(engine / trainer) of an episode whose advantage is negative; beyond, it teaches nothing;
    0 = off"""
    kl_coef: NotNegative
    """weight of the KL to the starting model in the loss; 0 = none, and no second model in memory"""
    kl_estimator: Literal["k1", "k2", "k3"]
    """estimator of that KL"""
    staleness: CountOrNone
    """how many updates the weights that drew a token may lie behind those it trains; 0 = each step waits for its own
    conversations, above it those of as many steps more go on while one trains (needs servers as engines)"""
    updates_per_batch: Count
    """optimiser steps on the same episodes"""
    outputs: Outputs
    """what a benchmark's task wants said: drop = no part of the reward, check = part of it"""
    refill_rounds: CountOrNone
    """how often groups that taught nothing are replaced within a step"""
    retry_faults: CountOrNone
    """how often a slot of a group that ended in a fault is played again"""
    keep: Count
    """checkpoints kept"""
    trackers: Annotated[list[Literal["tensorboard", "wandb", "trackio"]], BeforeValidator(as_list)]
    """who gets a copy of the metrics beside metrics.jsonl: tensorboard, wandb, trackio; empty = nobody"""
    watchdogs: Watchdogs
    alarm_at: AlarmAt

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not (self.epochs or self.steps or self.stop_after_seconds):
            raise ValueError("epochs, steps and stop_after_seconds are all 0: training would never take a step")
        return self

    @model_validator(mode="after")
    def _effective(self) -> Self:
        """Settings that the chosen loss does not look at are errors, not silence."""
        if not self.temperature:
            raise ValueError("temperature is 0: what is drawn without a choice has no probability to raise; 1 is usual")
        ratio_is_clipped = self.loss in ("token_mean", "sequence_mean", "dr_grpo")
        if 0 < self.dual_clip <= 1:
            raise ValueError("dual_clip is 0 (off) or above 1: below, it would bound losses that were never clipped")
        if self.dual_clip and not ratio_is_clipped:
            raise ValueError(f"dual_clip has no effect with the loss {self.loss}: leave it at 0")
        if self.sequence_gate and not (len(self.sequence_gate) == 2 and self.sequence_gate[0] < self.sequence_gate[1]):
            raise ValueError("sequence_gate is two numbers, low and high, as [0.99, 1.01], or empty")
        if self.staleness and (not self.engines or parse_engines(self.engines) is not None):
            raise ValueError(
                f"staleness {self.staleness} needs engines that are servers: in this process conversations are drawn "
                "with the very weights that are being changed, or stop while vLLM takes new ones. Start `muarl serve "
                "MODEL` and name it with --engine, or leave staleness at 0"
            )
        if self.staleness and not self.importance_cap:
            raise ValueError(
                f"staleness {self.staleness} needs importance_cap above 0 (2 is usual): nothing else weighs a token by "
                "the older weights that drew it"
            )
        if self.credit == "turn" and self.advantage not in ("mean", "loo"):
            raise ValueError("credit by turn subtracts an expectation and divides by nothing: advantage mean or loo")
        return self


class Eval(Served):
    """Settings of `muarl eval`."""

    bench: Literal["", "tau2", "tau1", "bfcl", "acebench"]
    """a benchmark's leaderboard set instead of tasks; empty = tasks"""
    domain: Names
    """domains of the benchmark; empty = those of the paper"""
    split: str
    """split of the benchmark; empty = its leaderboard set"""
    acebench_dir: str
    """checkout of ACEBench; empty = MUARL_ACEBENCH_DIR"""
    trials: Count
    """independent runs a task"""
    official_limits: bool
    """a benchmark's own limits of a conversation count instead of `limits`, where it has some"""
    floors: bool
    """run the do-nothing and the transfer-only agent beside it"""
    bootstrap: Annotated[int, Field(ge=100)]
    """resamples of the bootstrap intervals"""
    outputs: Outputs
    """what a benchmark's task wants said: check = part of the score, drop = no part of it"""
    judge: Judge
    allow_overlap: bool
    """score in spite of tasks the checkpoint was trained on; the overlap is then printed beside the score"""


MODELS: dict[Stage, type[StageSettings]] = {
    Stage.SYNTH_COLDSTART: SynthColdstart,
    Stage.SFT: Sft,
    Stage.ROLLOUT: Rollout,
    Stage.RL_TRAIN: RlTrain,
    Stage.EVAL: Eval,
}
FREE_KEYS = frozenset(
    {
        "in_flight",
        "max_usd",
        "prices",
        "user.base_url",
        "user.cassette",
        "teacher.base_url",
        "judges.base_url",
        "tool.base_url",
        "base_url",
        "acebench_dir",
        "engines",
        "stop_after_seconds",
        "keep",
        "save_every",
        "checkouts.tau1_root",
        "checkouts.tau2_python",
        "trackers",
        *(f"watchdogs.{name}" for name in Watchdogs.model_fields),
        *(f"alarm_at.{name}" for name in AlarmAt.model_fields),
    }
)
"""settings that say how a run is done, not what it is: they may differ when it is resumed and leave its hash alone"""
