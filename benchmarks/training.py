"""A GRPO step against TRL's on the same model and the same tokens: prints one JSON object.

    python benchmarks/training.py [--shape equal|prefix|vocabulary ...] [--steps 3] [--peer .venv-parity/bin/python]

Each side runs in a process of its own, in turns, and takes the same optimiser steps (loss, gradient, clipping, AdamW)
on recorded rollouts; nothing is generated. TRL runs through its own trainer with a `rollout_func` that returns the
recording, without gradient checkpointing and without a reference model, as ours does. Shapes: `equal` 8 episodes of
128 + 512 tokens that share nothing; `prefix` 8 episodes of one task with a common beginning of 2,000 tokens and 500 of
their own; `vocabulary` 8 x (64 + 192) tokens over a vocabulary of 151,936. Tokens per second count what a plain pass
has to compute (prompt and completion of every episode). Memory is the peak of the process, and its growth over what it
held before the first step. The peer's environment is built by `make parity`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EPISODES = 8
SHAPES: dict[str, dict[str, int]] = {
    "equal": {"prompt": 128, "common": 0, "completion": 512, "vocab": 1024, "width": 128, "layers": 4},
    "prefix": {"prompt": 2000, "common": 2000, "completion": 500, "vocab": 1024, "width": 128, "layers": 4},
    "vocabulary": {"prompt": 64, "common": 0, "completion": 192, "vocab": 151_936, "width": 64, "layers": 2},
}


def recording(shape: dict[str, int]) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids of each episode."""
    common = [random.Random("common").randrange(10, shape["vocab"]) for _ in range(shape["common"])]
    episodes = []
    for number in range(EPISODES):
        draw = random.Random(number)
        rest = [draw.randrange(10, shape["vocab"]) for _ in range(shape["prompt"] - shape["common"])]
        episodes.append((common + rest, [draw.randrange(10, shape["vocab"]) for _ in range(shape["completion"])]))
    return episodes


def make_model(shape: dict[str, int], folder: Path) -> None:
    """A model folder with a tokenizer that has as many tokens; both sides load it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        intermediate_size=3 * shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=shape["width"] // 4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words = {f"w{i}": i for i in range(shape["vocab"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="w1", eos_token="w2").save_pretrained(folder)


# -- the two sides, each in its own interpreter ------------------------------------------------------------------------


def ours(shape: dict[str, int], folder: Path, steps: int) -> list[float]:
    from muarl_cli.conversation.protocols import Owner, TokenRow
    from muarl_cli.training.grpo import GrpoSpec, GrpoTrainer, Sample
    from muarl_cli.training.tiny_model import load_model

    model = load_model(folder, "fp32")
    spec = GrpoSpec(
        lr=1e-6, schedule="constant", total_steps=0, warmup_steps=0, weight_decay=0.0, betas=(0.9, 0.95), grad_clip=1.0,
        loss="token_mean", loss_length=1, clip_low=0.2, clip_high=0.28, dual_clip=0.0, adaptive_clip=0.0, kl_coef=0.0,
        kl_estimator="k3", importance_cap=0.0, sequence_gate=None, off_policy_mask=0.0, temperature=1.0,
        micro_batch_tokens=8192, updates_per_batch=1,
    )  # fmt: skip
    trainer = GrpoTrainer(model, spec, None, sampled_is_old=False)
    samples = []
    for number, (prompt, completion) in enumerate(recording(shape)):
        owners = (int(Owner.USER),) * len(prompt) + (int(Owner.AGENT),) * len(completion)
        row = TokenRow((*prompt, *completion), owners, (0.0,) * len(prompt) + (-3.0,) * len(completion))
        samples.append(Sample(row, 1.0 if number % 2 else -1.0))
    report_memory()
    seconds = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        metrics = trainer.update(samples)
        seconds.append(time.perf_counter() - begun)
        assert metrics["updates"] == 1
    return seconds


def theirs(shape: dict[str, int], folder: Path, steps: int) -> list[float]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    episodes = recording(shape)

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [prompt for prompt, _ in episodes],
            "completion_ids": [completion for _, completion in episodes],
            "logprobs": [[-3.0] * len(completion) for _, completion in episodes],
        }

    class Watch(TrainerCallback):  # type: ignore[misc]
        seconds: list[float] = []  # noqa: RUF012
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.seconds:
                report_memory()
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.begun)

    watch = Watch()
    config = GRPOConfig(
        output_dir=str(folder / "out"), use_cpu=True, per_device_train_batch_size=EPISODES, num_generations=EPISODES,
        gradient_accumulation_steps=1, max_steps=steps + 1, learning_rate=1e-6, beta=0.0, max_grad_norm=1.0,
        max_completion_length=shape["completion"], gradient_checkpointing=False, bf16=False, report_to=[],
        save_strategy="no", logging_strategy="no", loss_type="dapo", epsilon=0.2, epsilon_high=0.28,
        mask_truncated_completions=False, use_vllm=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "w5"}] * (steps + 1)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[watch],
        rollout_func=rollout,
    )
    trainer.train()
    return watch.seconds


def memory(name: str) -> float:
    """MiB of this process, by a name of /proc/self/status (VmRSS, VmHWM)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


BEFORE = [0.0]


def report_memory() -> None:
    BEFORE[0] = memory("VmRSS")


def side(name: str, shape: str, folder: Path, steps: int) -> None:
    run = ours if name == "ours" else theirs
    seconds = run(SHAPES[shape], folder, steps)
    peak = memory("VmHWM")
    print(json.dumps({"seconds": seconds[1:], "peak_mb": peak, "growth_mb": peak - BEFORE[0]}))


# -- the comparison ----------------------------------------------------------------------------------------------------


def compare(shape: str, steps: int, repeat: int, peer: str) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as place:
        make_model(SHAPES[shape], Path(place))
        for _ in range(repeat):
            for name, python in (("ours", sys.executable), ("theirs", peer)):
                command = [python, __file__, "--side", name, "--shape", shape, "--folder", place, "--steps", str(steps)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
                found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    own = SHAPES[shape]
    tokens = EPISODES * (own["prompt"] + own["completion"])
    middle = {name: statistics.median(min(run["seconds"]) for run in runs) for name, runs in found.items()}
    peak = {name: max(run["peak_mb"] for run in runs) for name, runs in found.items()}
    growth = {name: max(run["growth_mb"] for run in runs) for name, runs in found.items()}
    return {
        "tokens": tokens,
        "ours_tokens_per_s": round(tokens / middle["ours"]),
        "trl_tokens_per_s": round(tokens / middle["theirs"]),
        "speedup": round(middle["theirs"] / middle["ours"], 2),
        "ours_peak_mb": round(peak["ours"]),
        "trl_peak_mb": round(peak["theirs"]),
        "peak_share": round(peak["ours"] / peak["theirs"], 2),
        "growth_share": round(growth["ours"] / growth["theirs"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A GRPO step against TRL's on the same CPU, model and tokens.")
    parser.add_argument("--shape", action="append", choices=tuple(SHAPES))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--peer", default=".venv-parity/bin/python", help="an interpreter that has TRL")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options.side, options.shape[0], options.folder, options.steps)
        return
    if not Path(options.peer).exists():
        raise SystemExit(f"error: there is no {options.peer}\nnext: make parity, or --peer PYTHON")
    shapes = options.shape or list(SHAPES)
    print(json.dumps({shape: compare(shape, options.steps, options.repeat, options.peer) for shape in shapes}))


if __name__ == "__main__":
    main()
