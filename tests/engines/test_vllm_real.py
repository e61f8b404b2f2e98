"""The engine contract on a real vLLM server (0.32, CPU build), with full and adapter updates: `make test-vllm`.

Needs an interpreter that has vLLM, named by MUARL_VLLM_PYTHON (`make test-vllm` builds an environment and names it);
without one there is nothing to test.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import contract
from engines.test_vllm_server import make_model

from muarl_cli.engines.canary import canary_of
from muarl_cli.engines.protocol import Sampling
from muarl_cli.engines.vllm_server import VllmServer, open_servers
from muarl_cli.engines.wire import RetryPolicy, Wire, resolve_address
from muarl_cli.errors import MuarlError

PYTHON = os.environ.get("MUARL_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs vLLM in an environment of its own: make test-vllm"),
]
CLOSE = 2e-3
"""two implementations of the same fp32 arithmetic"""


def save(model: Any, folder: Path) -> Path:
    """A model folder with a tokenizer, which vLLM asks for even where only token ids travel."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    plain = Tokenizer(models.WordLevel({f"w{i}": i for i in range(contract.VOCAB)}, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="w1", eos_token="w3").save_pretrained(folder)
    return folder


@contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`muarl serve` on a free port; the base URL and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--port", str(port), "--max-context", "512", "--python", PYTHON, *more]
    flags = ["--", "--dtype", "float32", "--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    program = [str(Path(sys.executable).with_name("muarl")), *words, *flags]
    process = subprocess.Popen(program, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError("the server did not start within five minutes")
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def connect(*urls: str) -> VllmServer:
    retry = RetryPolicy(attempts=2, request_seconds=60, base_seconds=0.1)
    return await open_servers([Wire(resolve_address(url), retry=retry) for url in urls], "0")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_real_server_keeps_the_contract_and_takes_new_weights(tied: bool, tmp_path: Path) -> None:
    """Also with a tied output layer, which vLLM's CPU back-end does not renew by itself: muarl's worker packs it again,
    and without that the canary stops the run."""
    old, new = make_model(0, tied), make_model(1, tied)
    with served(save(old, tmp_path / "model")) as (url, _):

        async def everything() -> None:
            engine = await connect(url)
            features = engine._servers[0].features
            assert features.full_weights and features.pauses and features.resets_cache
            await engine.check(engine._servers[0], canary_of(old, "fp32"))
            await contract.whole_contract(engine, old, CLOSE)
            with pytest.raises(MuarlError, match="does not compute"):
                await engine.check(engine._servers[0], canary_of(new, "fp32"))
            await engine.share(lambda folder: new.save_pretrained(folder), "1", canary_of(new, "fp32"), False)
            await contract.draws_from_the_model_it_serves(engine, new, CLOSE)
            if tied:
                await _stale_head(engine, old, tmp_path)
            await engine.close_connections()

        asyncio.run(everything())


async def _stale_head(engine: VllmServer, old: Any, tmp_path: Path) -> None:
    """vLLM's own reload, without muarl's worker: a 200, and the old output layer."""
    server = engine._servers[0]
    folder = tmp_path / "again"
    old.save_pretrained(folder)
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    await server.admin._call("POST", "/collective_rpc", body)
    await server.admin._call("POST", "/reset_prefix_cache")
    with pytest.raises(MuarlError, match="does not compute with the trainer's weights"):
        await engine.check(server, canary_of(old, "fp32"))
    await engine.share(lambda place: old.save_pretrained(place), "2", canary_of(old, "fp32"), False)


def test_a_real_server_swaps_adapters(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = make_model(0)
    with served(save(base, tmp_path / "model"), "--max-lora-rank", "8") as (url, _):

        async def everything() -> None:
            engine = await connect(url)
            for version in (1, 2):
                adapted = peft.get_peft_model(make_model(0), peft.LoraConfig(r=8, target_modules="all-linear")).eval()
                torch.manual_seed(version)
                for name, parameter in adapted.named_parameters():
                    if "lora_B" in name:
                        torch.nn.init.normal_(parameter, std=0.3)
                canary = canary_of(adapted, "fp32")
                await engine.share(lambda folder, a=adapted: a.save_pretrained(folder), str(version), canary, True)
                await contract.draws_from_the_model_it_serves(engine, adapted, CLOSE)
            await engine.close_connections()

        asyncio.run(everything())


def test_conversations_go_on_elsewhere_when_a_real_server_is_killed(tmp_path: Path) -> None:
    model = make_model(0)
    folder = save(model, tmp_path / "model")
    with served(folder) as (first, process), served(folder) as (second, _):

        async def everything() -> None:
            engine = await connect(first, second)
            ask = Sampling(1.0, 1.0, 6, contract.STOPS, 1)
            await asyncio.gather(*(engine.generate(contract.prompt(n, 12), ask, f"t{n}") for n in range(4)))
            os.killpg(process.pid, signal.SIGKILL)
            for n in range(4):
                drawn = await engine.generate(contract.prompt(n, 24), ask, f"t{n}")
                found = contract.expected(model, contract.prompt(n, 24), drawn, 1.0)
                assert torch.allclose(torch.tensor(drawn.logprobs), found, atol=CLOSE)
            assert engine.moved == 2
            await engine.close_connections()

        asyncio.run(everything())
