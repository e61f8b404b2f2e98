"""The in-process engine against a bare lock-step loop over the model, and against `generate`: prints one JSON object.

    python benchmarks/lockstep.py [--sessions 32] [--turns 8] [--first 500] [--news 60] [--drawn 32] [--repeat 3]

Sessions of several turns: a first prompt, then in each turn so many drawn tokens and so many new ones from a tool. The
bare loop is the least that sampling needs: `forward` with the cache kept over all turns, multinomial draws, the
log-probability of each drawn token; all rows are equally long at every moment, so that nothing is padded, masked or
scheduled. The engine does the same work through its own interface, as conversations that ask turn by turn: once
at equal lengths, once ragged (both lengths of each turn drawn between half and one and a half times the mean).
`generate` prefills every prompt from its beginning, at the same lengths; ragged ones are padded on the left and drawn
until the longest turn is over. Tokens per second count drawn tokens that somebody asked for; ratios are medians of the
paired repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from generation import VOCAB, make_model
from transformers import DynamicCache
from transformers.utils import logging

from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Sampling


def fresh(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(30, VOCAB) for _ in range(count))


def lockstep(model: Any, shape: argparse.Namespace) -> int:
    """The bare loop; how many tokens it drew."""
    draw = random.Random(0)
    cache = DynamicCache(config=model.config)
    feed = torch.tensor([fresh(draw, shape.first) for _ in range(shape.sessions)])
    logprobs: list[Any] = []
    with torch.inference_mode():
        for turn in range(shape.turns):
            if turn:
                news = torch.tensor([fresh(draw, shape.news) for _ in range(shape.sessions)])
                feed = torch.cat([feed, news], 1)
            for _ in range(shape.drawn):
                out = model(input_ids=feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
                chances = torch.log_softmax(out.logits[:, -1].float(), -1)
                feed = torch.multinomial(chances.exp(), 1)
                logprobs.append(chances.gather(1, feed))
    return torch.cat(logprobs, 1).numel()


class Talk:
    """One conversation: what it says and how long its turns are, the same for everybody who holds it."""

    def __init__(self, number: int, shape: argparse.Namespace, ragged: bool) -> None:
        self._draw, self._shape, self._ragged = random.Random(number), shape, ragged
        self.ids = fresh(self._draw, self._length(shape.first))

    def asks(self) -> int:
        """How many tokens the next turn draws."""
        return self._length(self._shape.drawn)

    def hears(self, drawn: tuple[int, ...]) -> None:
        self.ids += drawn + fresh(self._draw, self._length(self._shape.news))

    def _length(self, mean: int) -> int:
        return self._draw.randint(mean // 2, mean + mean // 2) if self._ragged else mean


def engine(model: Any, shape: argparse.Namespace, ragged: bool) -> int:
    """The engine, asked by conversations; how many tokens it drew."""
    runner = HFEngine(model, "fp32", max_batch=shape.sessions)

    async def hold(number: int) -> int:
        talk, drawn = Talk(number, shape, ragged), 0
        for turn in range(shape.turns):
            sampling = Sampling(1.0, 1.0, talk.asks(), (), 1000 * number + turn)
            generation = await runner.generate(talk.ids, sampling, f"{number:06d}")
            drawn += len(generation.ids)
            talk.hears(generation.ids)
        runner.release(f"{number:06d}")
        return drawn

    async def everyone() -> int:
        return sum(await asyncio.gather(*(hold(number) for number in range(shape.sessions))))

    try:
        return asyncio.run(everyone())
    finally:
        runner.close()


def reprefilled(model: Any, shape: argparse.Namespace, ragged: bool) -> int:
    """`generate` over the whole conversations so far; how many of its tokens were asked for."""
    talks = [Talk(number, shape, ragged) for number in range(shape.sessions)]
    drawn = 0
    for _ in range(shape.turns):
        asked = [talk.asks() for talk in talks]
        width = max(len(talk.ids) for talk in talks)
        ids = torch.tensor([[0] * (width - len(talk.ids)) + list(talk.ids) for talk in talks])
        mask = torch.tensor([[0] * (width - len(talk.ids)) + [1] * len(talk.ids) for talk in talks])
        with torch.inference_mode():
            longer = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max(asked),
                min_new_tokens=max(asked),
                eos_token_id=1,
                pad_token_id=0,
            )
        for talk, count, row in zip(talks, asked, longer[:, width:].tolist(), strict=True):
            talk.hears(tuple(row[:count]))
        drawn += sum(asked)
    return drawn


def rate(work: Callable[[], int]) -> float:
    """Tokens a second."""
    began = time.perf_counter()
    return work() / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape = {"sessions": 32, "turns": 8, "first": 500, "news": 60, "drawn": 32}
    for name, default in (shape | {"repeat": 3, "layers": 3, "width": 128, "kv-heads": 2}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    logging.set_verbosity_error()
    model = make_model(options)
    small = argparse.Namespace(sessions=4, turns=2, first=32, news=8, drawn=4)
    lockstep(model, small), engine(model, small, True), reprefilled(model, small, True)
    rows = []
    for repeat in range(options.repeat):
        torch.manual_seed(repeat)
        rows.append(
            (
                rate(lambda: lockstep(model, options)),
                rate(lambda: engine(model, options, False)),
                rate(lambda: engine(model, options, True)),
                rate(lambda: reprefilled(model, options, False)),
                rate(lambda: reprefilled(model, options, True)),
            )
        )
    print(
        json.dumps(
            {
                "lockstep_tokens_per_s": round(statistics.median(row[0] for row in rows)),
                "equal": round(statistics.median(row[1] / row[0] for row in rows), 3),
                "ragged": round(statistics.median(row[2] / row[0] for row in rows), 3),
                "over_generate": round(statistics.median(row[1] / row[3] for row in rows), 2),
                "ragged_over_generate": round(statistics.median(row[2] / row[4] for row in rows), 2),
                "parameters": sum(p.numel() for p in model.parameters()),
                "threads": torch.get_num_threads(),
                "load": round(os.getloadavg()[0], 1),
                **vars(options),
            }
        )
    )


if __name__ == "__main__":
    main()
