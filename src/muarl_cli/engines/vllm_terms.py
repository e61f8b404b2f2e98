"""How a vLLM is asked, whether it is a server or runs in this process: its options, its sampling, its words for a turn.

Invariant: everything that shapes the distribution is said, so that neither a server's nor a model folder's own defaults
can; and an option that muarl relies on stands here alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muarl_cli.engines.protocol import Finish, Generation, Sampling
from muarl_cli.errors import ExitCode, MuarlError

ADAPTER = "muarl-policy"
"""begins the names under which the policy's adapters are served"""
OPTIONS: dict[str, Any] = {
    "generation_config": "vllm",  # a folder's own sampling defaults would change the distribution unseen
    "logprobs_mode": "processed_logprobs",  # after temperature and top-p: what was really drawn from
    "max_logprobs": 1,
    "worker_extension_cls": "muarl_cli.engines.vllm_worker.Worker",
}
"""of vLLM's engine, by the names of its arguments"""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""of adapters that vLLM makes room for"""
CANARY: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
"""how the log-probabilities of a prompt are asked for; vLLM computes such a prompt anew, whatever is cached of it"""


def sampling_options(sampling: Sampling) -> dict[str, Any]:
    """By vLLM's names, which are the same over HTTP and in Python."""
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": sampling.seed % 2**31,
        "stop_token_ids": list(sampling.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "skip_special_tokens": False,
    }


def turn_of(ids: Sequence[int], logprobs: Sequence[float], sampling: Sampling, version: str) -> Generation:
    """A turn as vLLM drew it; its last token says why it ended."""
    finish = Finish.STOP if ids[-1] in sampling.stop_ids else Finish.LENGTH
    return Generation(tuple(ids), tuple(float(p) for p in logprobs), finish, version)


def room_for(rank: int) -> int:
    """The least rank that vLLM makes room for and that holds `rank`. Raises `MuarlError` where none does."""
    room = next((known for known in RANKS if known >= rank), None)
    if room is None:
        raise MuarlError(
            f"vLLM serves no adapter of rank {rank}",
            why=f"its largest is {RANKS[-1]}",
            next_step=f"train one with lora.rank={RANKS[-1]} or less, or merge it (`muarl export model --merged`)",
            code=ExitCode.CONFIG,
        )
    return room
