"""The in-process engine against plain `generate` on the same prompts: prints one JSON object.

    python benchmarks/generation.py [--sessions 64] [--turns 8] [--layers 3] [--width 128] [--kv-heads 2] [--repeat 3]

The workload is a set of conversations of several turns with ragged lengths, drawn once by the engine at temperature 1
and recorded. Both then do the work again: the engine as it does in a rollout, `generate` as the obvious alternative
does it, one left-padded batch a turn over the whole prompts so far, sampling with the same temperature and stop
tokens. Tokens per second count what was sampled before a stop. `ratio` is the median of the paired repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Sampling

VOCAB = 700
STOPS = tuple(range(1, 25))
"""of a random model: a turn of some 30 tokens"""
TURN_TOKENS = 64
SYSTEM_TOKENS = 150
Prompt = tuple[int, ...]


def make_model(options: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=options.width,
        intermediate_size=3 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 32,
        num_key_value_heads=options.kv_heads,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config).eval()


async def hold(engine: HFEngine, number: int, turns: int, prompts: list[list[Prompt]]) -> int:
    """One conversation; records its prompts by turn and returns how many tokens were sampled."""
    draw = random.Random(number)
    common = random.Random("system")
    ids: Prompt = tuple(common.randrange(30, VOCAB) for _ in range(SYSTEM_TOKENS))
    sampled = 0
    for turn in range(turns):
        ids += tuple(draw.randrange(30, VOCAB) for _ in range(draw.randint(10, 50)))
        prompts[turn].append(ids)
        sampling = Sampling(1.0, 1.0, TURN_TOKENS, STOPS, 1000 * number + turn)
        generation = await engine.generate(ids, sampling, f"{number:06d}")
        sampled += len(generation.ids)
        ids += generation.ids
    engine.release(f"{number:06d}")
    return sampled


def run_engine(model: Any, sessions: int, turns: int) -> tuple[int, list[list[Prompt]]]:
    engine = HFEngine(model, "fp32", max_batch=sessions)
    prompts: list[list[Prompt]] = [[] for _ in range(turns)]

    async def everyone() -> int:
        return sum(await asyncio.gather(*(hold(engine, number, turns, prompts) for number in range(sessions))))

    sampled = asyncio.run(everyone())
    engine.close()
    return sampled, prompts


def run_generate(model: Any, prompts: list[list[Prompt]]) -> int:
    """The same prompts, each turn prefilled from its beginning."""
    sampled = 0
    for batch in prompts:
        longest = max(len(ids) for ids in batch)
        padded = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in batch])
        with torch.inference_mode():
            drawn = model.generate(
                padded,
                attention_mask=torch.arange(longest) >= longest - torch.tensor([len(ids) for ids in batch])[:, None],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=TURN_TOKENS,
                eos_token_id=list(STOPS),
                pad_token_id=0,
            )[:, longest:]
        ended = torch.isin(drawn, torch.tensor(STOPS))
        sampled += int((ended.cumsum(1) - ended.long() == 0).sum())
    return sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (
        ("sessions", 64),
        ("turns", 8),
        ("layers", 3),
        ("width", 128),
        ("kv-heads", 2),
        ("repeat", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    logging.set_verbosity_error()
    model = make_model(options)
    run_engine(model, min(4, options.sessions), 2)
    rates: list[tuple[float, float]] = []
    for repeat in range(options.repeat):
        torch.manual_seed(repeat)
        started = time.perf_counter()
        sampled, prompts = run_engine(model, options.sessions, options.turns)
        middle = time.perf_counter()
        plain = run_generate(model, prompts)
        rates.append((sampled / (middle - started), plain / (time.perf_counter() - middle)))
    print(
        json.dumps(
            {
                "engine_tokens_per_s": round(statistics.median(rate for rate, _ in rates)),
                "generate_tokens_per_s": round(statistics.median(rate for _, rate in rates)),
                "ratio": round(statistics.median(ours / theirs for ours, theirs in rates), 2),
                "sampled_tokens": sampled,
                "longest_prompt": max(len(ids) for ids in prompts[-1]),
                "parameters": sum(p.numel() for p in model.parameters()),
                "threads": torch.get_num_threads(),
                "load": round(os.getloadavg()[0], 1),
                **vars(options),
            }
        )
    )


if __name__ == "__main__":
    main()
