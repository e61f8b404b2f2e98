"""Threads that take turns at computing, counted by the operating system."""

from __future__ import annotations

import subprocess
import sys

THREADS_OF_A_PROCESS = """
import asyncio, sys, threading, time
from pathlib import Path
import torch
from muarl_cli.teams import computed, let_go

def alive():
    return len(list(Path("/proc/self/task").iterdir()))

def settled(wanted):
    for _ in range(500):  # a worker that was told to end needs a moment
        if alive() == wanted:
            break
        time.sleep(0.01)
    return alive()

def product():
    return torch.ones(400, 400) @ torch.ones(400, 400)
"""


def _run(program: str) -> str:
    environment = {"OMP_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", THREADS_OF_A_PROCESS + program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_thread_that_lets_go_has_no_workers_and_computes_again() -> None:
    program = """
before = alive()
first = product()
during = alive()
let_go()
after = settled(before)
assert torch.equal(product(), first)
print(during - before, after - before, alive() - before)
"""
    assert _run(program) == "1 0 1"


def test_drawing_leaves_one_team_at_most_and_it_is_nobodys() -> None:
    """The main thread has computed before; the engine's thread is there afterwards, without workers."""
    program = """
from muarl_cli.engines.hf import HFEngine
from muarl_cli.engines.protocol import Sampling
from transformers import Qwen3Config, Qwen3ForCausalLM

shape = dict(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
model = Qwen3ForCausalLM(Qwen3Config(**shape, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096)).eval()
product()
with_a_team = alive()
let_go()
before = settled(with_a_team - 1)
product()
engine = HFEngine(model, "fp32")
prompt = tuple(range(7, 97)) * 20

async def ask():
    await engine.generate(prompt, Sampling(1.0, 1.0, 2, (), 0), "a")

asyncio.run(ask())
after = settled(before + 1)
names = {thread.name.rsplit("_", 1)[0] for thread in threading.enumerate()}
print(after - before, *sorted(names))
"""
    assert _run(program) == "1 MainThread muarl-engine"


def test_work_that_fails_lets_go_as_well() -> None:
    program = """
def fails():
    product()
    raise ValueError("as it was raised")

before = alive()
try:
    computed(fails)
except ValueError as error:
    print(error, settled(before) - before)
"""
    assert _run(program) == "as it was raised 0"
